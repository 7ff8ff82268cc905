-- ARGV: key of the last batch's number, what it was, what it is now; what to write and what to read, see the native
-- module's wire.rs; time to live of a key (milliseconds). A smaller last number than it was is returned and nothing done.
-- All is written before anything is read. Nothing is compared here.

local PREFIX = 'social:simhash:'
-- Slots in which a post may come late and still find what was beside it; a replay goes through many in no time.
local OVER = 8
local writes, reads, life = ARGV[4], ARGV[5], ARGV[6]
local call, sub, unpack_numbers = redis.call, string.sub, struct.unpack

local known = call('GET', ARGV[1]) or '0'
if tonumber(known) < tonumber(ARGV[2]) then return {known} end
call('SET', ARGV[1], ARGV[3], 'PX', life)
local arrival = struct.pack('>I6', call('INCR', PREFIX .. 'arrivals'))

local at, over = 1, {}
while at <= #writes do
  local bucket, slot, length
  bucket, slot, length, at = unpack_numbers('>Bc0Bc0I4', writes, at)
  local name = PREFIX .. bucket .. ':'
  local chunk = arrival .. sub(writes, at, at + length - 1)
  at = at + length
  if call('APPEND', name .. slot, chunk) == #chunk then over[#over + 1] = name .. string.format('%d', slot - OVER) end
  call('PEXPIRE', name .. slot, life)
end

local out = {known}
at = 1
while at <= #reads do
  local name, from
  name, from, at = unpack_numbers('>Bc0I6', reads, at)
  out[#out + 1] = call('GETRANGE', PREFIX .. name, from, -1)
end
-- Not before: a batch may have posts of both.
for _, key in ipairs(over) do call('UNLINK', key) end
return out
