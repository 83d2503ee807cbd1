-- SPDX-License-Identifier: Apache-2.0
--
-- The arithmetic of the budget inside Redis: arithmetic.py, function by function, on the clock of the server.
-- Its constants stand in front of this text as the table C. Every number is a whole one below 2^53, which a
-- double holds exactly.

local floor, max, min = math.floor, math.max, math.min

local FIELDS = {
  'seen', 'limit', 'pause', 'others', 'wary', 'jitter', 'answers', 'fastest', 'slowest',
  'moves', 'move_first', 'move_last', 'move_to', 'move_pace', 'booked',
}

local function fresh()
  local state = {slots = {}}
  for _, field in ipairs(FIELDS) do state[field] = 0 end
  state.limit, state.jitter = C.LIMIT, -1
  return state
end

local function load(line)
  if not line then return fresh() end
  local numbers, form = {}, nil
  for word in line:gmatch('%S+') do
    if not form then
      form = word
    else
      local number = tonumber(word)
      if not number or number ~= floor(number) or math.abs(number) > 2^53 then return fresh() end
      numbers[#numbers + 1] = number
    end
  end
  if form ~= C.FORMAT or #numbers < #FIELDS then return fresh() end
  local state = {slots = {}}
  for index, field in ipairs(FIELDS) do state[field] = numbers[index] end
  for index = #FIELDS + 1, #numbers do
    local slot = numbers[index]
    if #state.slots > 0 and slot < state.slots[#state.slots] then return fresh() end
    state.slots[#state.slots + 1] = slot
  end
  if state.limit < 1 or state.limit > C.MOST then return fresh() end
  return state
end

local function dump(state)
  local words = {C.FORMAT}
  for _, field in ipairs(FIELDS) do words[#words + 1] = string.format('%.0f', state[field]) end
  for _, slot in ipairs(state.slots) do words[#words + 1] = string.format('%.0f', slot) end
  return table.concat(words, ' ')
end

local function settle(state, now)
  local passed = now - state.seen
  state.seen = now
  if passed >= 0 then
    state.others = max(0, state.others - floor(passed / C.FORGET))
    return
  end
  state.pause = state.pause + passed
  state.wary = state.wary + passed
  state.move_to = state.move_to + passed
  for index, slot in ipairs(state.slots) do state.slots[index] = slot + passed end
end

local function margin(state)
  if state.seen < state.wary then return C.WARY_MARGIN end
  if state.jitter < 0 then return C.MARGIN end
  local jitter = max(state.jitter, state.slowest - state.fastest)
  return min(max(jitter + C.SLACK, C.LEAST_MARGIN), C.MARGIN)
end

local function room(state, share)
  local period = C.WINDOW + margin(state)
  local ours = floor(max(C.WHOLE, state.limit * C.WHOLE - state.others) * share / C.WHOLE)
  if ours >= C.WHOLE then return floor(ours / C.WHOLE), period end
  return 1, floor(period * C.WHOLE / ours)
end

local function count_waiting(state, pace, more)
  local count = 0
  for _, slot in ipairs(state.slots) do
    if slot > state.seen then count = count + 1 end
  end
  if count == 0 or count < #state.slots then return count end
  if state.booked - count < state.move_last then pace = max(pace, state.move_pace) end
  return min(state.booked, count + floor((state.slots[1] - state.seen) / pace) + more)
end

local function waiting(state)
  local _, period = room(state, C.WHOLE)
  return count_waiting(state, floor(period / state.limit), 0)
end

local function book(state, now, share, max_wait)
  settle(state, now)
  local capacity, period = room(state, share)
  local slots = state.slots
  local at = max(now, state.pause, slots[#slots] or now)
  if #slots >= capacity then
    local free = slots[#slots - capacity + 1] + period
    local even = slots[#slots] + floor(period / capacity)
    if state.others == 0 then even = min(even, free + C.SPREAD) end
    at = max(at, free, even)
  end
  local crowd = 1
  for _, slot in ipairs(slots) do
    if slot > at - C.WINDOW - C.MARGIN then crowd = crowd + 1 end
  end
  local granted = at - now <= max_wait
  local booking = {granted and 1 or 0, at, at - now, waiting(state), state.booked + 1, state.moves, crowd, capacity}
  if granted then
    state.booked = state.booked + 1
    slots[#slots + 1] = at
    while #slots > C.KEPT * state.limit do table.remove(slots, 1) end
  end
  return booking
end

local function move(state, share)
  local count = count_waiting(state, floor((C.WINDOW + C.LEAST_MARGIN) / state.limit), state.limit)
  if count == 0 then return end
  local capacity, period = room(state, share)
  local first, to, pace = state.booked - count + 1, state.pause, -floor(-period / capacity)
  if first <= state.move_last then
    to = max(to, state.move_to + (first - state.move_first) * state.move_pace)
    pace = max(pace, state.move_pace)
  end
  local oldest = state.booked - #state.slots + 1
  for index, slot in ipairs(state.slots) do
    if slot > state.seen then
      state.slots[index] = max(slot, to + (oldest + index - 1 - first) * pace)
    end
  end
  state.moves = state.moves + 1
  state.move_first, state.move_last = first, state.booked
  state.move_to, state.move_pace = to, pace
end

local function refused(state, now, answer)
  if answer.at >= state.pause then
    if state.others == 0 then state.wary = now + C.WARY_FOR end
    state.others = min(state.others + C.REFUSED, state.limit * C.WHOLE)
  end
  local pause = answer.retry_after >= 0 and answer.retry_after or C.WINDOW
  local ends = now + min(pause, C.LONGEST_PAUSE)
  if ends > state.pause then
    state.pause = ends
    move(state, answer.share)
  end
end

local function left_late(state, answer)
  local first = max(0, answer.number - (state.booked - #state.slots + 1))
  local left = answer.at + answer.late
  for index = first + 1, #state.slots do state.slots[index] = max(state.slots[index], left) end
end

local function time(state, round_trip)
  if round_trip < 0 then return end
  state.fastest = state.answers > 0 and min(state.fastest, round_trip) or round_trip
  state.slowest = state.answers > 0 and max(state.slowest, round_trip) or round_trip
  state.answers = state.answers + 1
  if state.answers < C.READING then return end
  state.jitter = max(state.slowest - state.fastest, floor(state.jitter * 3 / 4))
  state.answers, state.fastest, state.slowest = 0, 0, 0
end

local function notice_others(state, answer)
  local ours = answer.capacity
  local later = state.booked - answer.number
  if later >= 0 and later <= #state.slots then
    local late = max(C.MARGIN, answer.round_trip - state.fastest)
    local overtaking = 0
    for index = #state.slots - later + 1, #state.slots do
      if state.slots[index] <= answer.at + late then overtaking = overtaking + 1 end
    end
    ours = min(ours, answer.crowd + overtaking)
  end
  local strangers = state.limit - answer.remaining - ours
  if strangers < (state.others > 0 and 1 or 2) then return end
  state.others = max(state.others, (strangers + C.HEADROOM) * C.WHOLE)
end

local function hear(state, now, answer)
  settle(state, now)
  if answer.limit > 0 then state.limit = min(answer.limit, C.MOST) end
  if answer.late > C.TOLERATED then left_late(state, answer) end
  if answer.refused == 1 then return refused(state, now, answer) end
  time(state, answer.round_trip)
  if answer.remaining >= 0 and answer.share == C.WHOLE then notice_others(state, answer) end
end

local key, action = KEYS[1], ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local state = load(redis.call('GET', key))
local result = false

if action == 'look' then
  settle(state, now)
  return dump(state)
elseif action == 'book' then
  result = book(state, now, tonumber(ARGV[2]), tonumber(ARGV[3]))
else
  local answer = {}
  for index, field in ipairs({
    'at', 'number', 'crowd', 'capacity', 'refused', 'limit', 'remaining', 'retry_after', 'round_trip', 'late', 'share',
  }) do
    answer[field] = tonumber(ARGV[index + 1])
  end
  hear(state, now, answer)
end

-- What was learned lives an hour longer than the last slot.
local last = max(now, state.slots[#state.slots] or 0, state.wary)
redis.call('SET', key, dump(state), 'PX', string.format('%.0f', floor((last - now) / 1000) + 3600000))
return result
