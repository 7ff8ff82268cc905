-- ARGV: key and number of the batch, how many of the last posts are asked about, largest distance, time to live of an
-- entry, how long it is held, length of a cell, time to live of a key and below which it is renewed (all milliseconds),
-- the blocks' masks, then the posts (all packed). All are inserted before any is looked up.

local asked, near, ttl, held = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local cell, life, renew, masks = tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9]), ARGV[10]
local band, bxor, rshift, tohex = bit.band, bit.bxor, bit.rshift, bit.tohex
local call, unpack_numbers = redis.call, struct.unpack

local ones = {[0] = 0}
for i = 1, 255 do ones[i] = ones[rshift(i, 1)] + i % 2 end
local function count(x)
  return ones[band(x, 255)] + ones[band(rshift(x, 8), 255)] + ones[band(rshift(x, 16), 255)] + ones[rshift(x, 24)]
end

local blocks = {}
for at = 1, #masks, 8 do
  local high, low = unpack_numbers('>I4I4', masks, at)
  blocks[#blocks + 1] = {high, low, 'social:simhash:' .. #blocks .. ':'}
end
local function buckets(high, low)
  local out = {}
  for i, block in ipairs(blocks) do out[i] = block[3] .. tohex(band(high, block[1])) .. tohex(band(low, block[2])) end
  return out
end
local known = {}
local function posts_of(fingerprint)
  local posts = known[fingerprint]
  if not posts then
    local high, low = unpack_numbers('>I4I4', fingerprint)
    local packed = call('GET', 'social:simhash:' .. tohex(high) .. tohex(low))
    posts = packed and cmsgpack.unpack(packed) or {}
    known[fingerprint] = posts
  end
  return posts
end

-- The posts of a fingerprint with this one among them; nil when that changes nothing.
local function joined(posts, sequence, time, id)
  local place, earlier = math.floor(time / cell), 0
  for i = 1, #posts, 3 do
    if posts[i] > sequence then break end
    if posts[i + 2] == id then return nil end
    if math.floor(posts[i + 1] / cell) == place then earlier = earlier + 1 end
  end
  if earlier >= 2 then return nil end
  local out, put = {}, false
  local function add(s, t, name)
    local n = #out
    out[n + 1], out[n + 2], out[n + 3] = s, t, name
  end
  for i = 1, #posts, 3 do
    local s, t, name = posts[i], posts[i + 1], posts[i + 2]
    if not put and s > sequence then
      add(sequence, time, id)
      put, earlier = true, earlier + 1
    end
    local same = math.floor(t / cell) == place
    if name ~= id and t >= time - held and not (put and same and earlier >= 2) then
      add(s, t, name)
      if put and same then earlier = earlier + 1 end
    end
  end
  if not put then add(sequence, time, id) end
  return out
end

local function insert(post)
  local sequence, time = post.sequence, post.time
  local posts = joined(posts_of(post.fingerprint), sequence, time, post.id)
  if not posts then return end
  known[post.fingerprint] = posts
  call('SET', 'social:simhash:' .. tohex(post.high) .. tohex(post.low), cmsgpack.pack(posts), 'PX', life)
  for _, key in ipairs(post.buckets) do
    call('ZADD', key, 'GT', time, post.fingerprint)
    -- Now and then is enough: what is over is not looked at.
    if sequence % 8 == 0 then call('ZREMRANGEBYSCORE', key, '-inf', '(' .. string.format('%.0f', time - held)) end
    if call('PTTL', key) < renew then call('PEXPIRE', key, life) end
  end
end

local function find(post)
  local high, low, sequence, time, id = post.high, post.low, post.sequence, post.time, post.id
  local found, met = '', {}
  -- For its other symbols a post has later numbers: what counts is the first.
  local own = posts_of(post.fingerprint)
  for i = 1, #own, 3 do
    if own[i] >= sequence then break end
    if own[i + 2] == id then sequence = own[i] end
  end
  for _, key in ipairs(post.buckets) do
    for _, member in ipairs(call('ZRANGEBYSCORE', key, time - ttl, '+inf')) do
      local h, l = unpack_numbers('>I4I4', member)
      local distance = count(bxor(h, high))
      if distance <= near and distance + count(bxor(l, low)) <= near and not met[member] then
        met[member] = true
        local posts = posts_of(member)
        for i = 1, #posts, 3 do
          if posts[i] >= sequence then break end
          if posts[i + 2] ~= id and math.abs(time - posts[i + 1]) <= ttl then
            sequence, found = posts[i], member .. posts[i + 2]
            break
          end
        end
      end
    end
  end
  return found
end

local out = {call('GET', ARGV[1]) or '0'}
call('SET', ARGV[1], ARGV[2], 'PX', life)
local posts = {}
for i = 11, #ARGV do
  local high, low, sequence, time, at = unpack_numbers('>I4I4dd', ARGV[i])
  local post = {
    fingerprint = string.sub(ARGV[i], 1, 8), high = high, low = low, buckets = buckets(high, low),
    sequence = sequence, time = time, id = string.sub(ARGV[i], at),
  }
  insert(post)
  posts[#posts + 1] = post
end
for i = #posts - asked + 1, #posts do out[#out + 1] = find(posts[i]) end
return out
