-- ARGV: whether the posts are remembered (1 or 0), for how long texts are, those of a channel and authors (ms), the most
-- posts kept of a text and of an author, how many of the first of them, by how much longer keys live (ms), then the
-- posts, packed one after the other.
-- Returns for each: copies, their authors, own copies, posts of the author, posts and authors of the hour before.

local remember = ARGV[1] == '1'
local text_ms, channel_ms, author_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local text_limit, author_limit, first_kept = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local longer = tonumber(ARGV[8])
local call, unpack_numbers, sub = redis.call, struct.unpack, string.sub
local SIZE, ID, AUTHOR = 24, 16, 20
local NOBODY = '\0\0\0\0'

local function trimmed(entries, time, window, limit)
  if #entries < limit * SIZE then return entries end
  local live = {}
  for at = 1, #entries, SIZE do
    local _, t = unpack_numbers('>dd', entries, at)
    if t >= time - window then live[#live + 1] = sub(entries, at, at + SIZE - 1) end
  end
  if #live < limit then return table.concat(live) end
  return table.concat(live, '', 1, first_kept) .. table.concat(live, '', #live - math.ceil(limit / 2) + 1)
end

-- The entries of a key; those of other posts that come earlier, as positions; whether the post is among them.
local function earlier(key, post, window)
  local entries = call('GET', key) or ''
  local before, known = post.sequence, false
  for at = 1, #entries, SIZE do
    if sub(entries, at + ID, at + ID + 3) == post.id then
      -- For its other symbols a post has later numbers: what counts is the first.
      before, known = unpack_numbers('>d', entries, at), true
      break
    end
  end
  local found = {}
  for at = 1, #entries, SIZE do
    local s, t = unpack_numbers('>dd', entries, at)
    if s < before and math.abs(post.time - t) <= window and sub(entries, at + ID, at + ID + 3) ~= post.id then
      found[#found + 1] = at
    end
  end
  return entries, found, known
end

local function insert(key, entries, post, window, limit)
  call('SET', key, trimmed(entries, post.time, window, limit) .. post.entry, 'PX', window + longer)
end

local function of_text(key, window, post, best)
  local entries, found, known = earlier(key, post, window)
  if remember and not known then insert(key, entries, post, window, text_limit) end
  if #found <= best[1] then return best end
  local authors, seen, own = 0, {}, 0
  for _, at in ipairs(found) do
    local author = sub(entries, at + AUTHOR, at + AUTHOR + 3)
    if not seen[author] then
      seen[author] = true
      authors = authors + 1
    end
    if author == post.author and author ~= NOBODY then own = own + 1 end
  end
  return {#found, authors, own}
end

-- Posts and authors of an hour, read once for a batch and counted on.
local crowds = {}
local function crowd_of(hour)
  local crowd = crowds[hour]
  if not crowd then
    local found = call('HMGET', string.format('social:population:%.0f', hour), 'posts', 'authors')
    crowd = {tonumber(found[1] or 0), tonumber(found[2] or 0)}
    crowds[hour] = crowd
  end
  return crowd
end

local function of_author(key, post)
  local entries, found, known = earlier(key, post, author_ms)
  if remember and not known then
    local hour = math.floor(post.time / author_ms)
    local first = 1
    for at = 1, #entries, SIZE do
      local _, t = unpack_numbers('>dd', entries, at)
      if math.floor(t / author_ms) == hour then first = 0 end
    end
    local name, crowd = string.format('social:population:%.0f', hour), crowd_of(hour)
    crowd[1], crowd[2] = crowd[1] + 1, crowd[2] + first
    if call('HINCRBY', name, 'posts', 1) == 1 then call('PEXPIRE', name, 2 * author_ms + longer) end
    if first == 1 then call('HINCRBY', name, 'authors', 1) end
    insert(key, entries, post, author_ms, author_limit)
  end
  return #found
end

local out = {}
local packed, at = ARGV[9], 1
while at <= #packed do
  local sequence, time = unpack_numbers('>dd', packed, at)
  local is_channel, texts, length = unpack_numbers('>BBH', packed, at + SIZE)
  local first = at + SIZE + 4
  local author, written = sub(packed, first + 8 * texts, first + 8 * texts + length - 1), 0
  local post = {
    sequence = sequence, time = time, entry = sub(packed, at, at + SIZE - 1),
    id = sub(packed, at + ID, at + ID + 3), author = sub(packed, at + AUTHOR, at + AUTHOR + 3),
  }
  local best = {0, 0, 0}
  for n = 0, texts - 1 do
    local text = string.format('%08x%08x', unpack_numbers('>I4I4', packed, first + 8 * n))
    best = of_text('social:copies:' .. text, text_ms, post, best)
    if is_channel == 1 then best = of_text('social:copies:' .. author .. ':' .. text, channel_ms, post, best) end
  end
  local crowd = crowd_of(math.floor(time / author_ms) - 1)
  if author ~= '' then written = of_author('social:frequency:' .. author, post) end
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = best[1], best[2], best[3], written
  out[n + 5], out[n + 6] = crowd[1], crowd[2]
  at = first + 8 * texts + length
end
return out
