--- For Neovim 0.11, which has no inline completion: request after a pause in the typing, and draw an extmark.

local api = vim.api

local M = { namespace = api.nvim_create_namespace('repoformer.ghost') }

local METHOD = 'textDocument/inlineCompletion'
local PAUSE_MS = 150
local INVOKED, AUTOMATIC = 1, 2

---@class repoformer.own.State
---@field client vim.lsp.Client
---@field timer uv.uv_timer_t
---@field due? table The pause in progress
---@field request? integer
---@field asked? string The `place` of the last request, unless it was cancelled or dismissed
---@field items table[]
---@field index integer
---@field complete boolean Whether the user requested the items: the list is then complete

---@type table<integer, repoformer.own.State>
local states = {}

function M.adopt(_) end

--- Draw the part of the chosen item that is not typed yet, after the cursor.
local function draw(buf, hint)
  M.hide(buf)
  local state = states[buf]
  local item = state.items[state.index]
  if not item or api.nvim_get_current_buf() ~= buf or not vim.startswith(api.nvim_get_mode().mode, 'i') then
    return
  end
  local rest = require('repoformer.ghost').rest(item)
  if not rest then
    return
  end
  local lines = vim.tbl_map(function(text)
    return { { text, 'ComplHint' } }
  end, vim.split(rest, '\n', { plain = true }))
  if hint then
    table.insert(lines[#lines], { (' (%d/%d)'):format(state.index, #state.items), 'ComplHintMore' })
  end
  local row, col = unpack(api.nvim_win_get_cursor(0))
  api.nvim_buf_set_extmark(buf, M.namespace, row - 1, col, {
    virt_text = lines[1],
    virt_text_pos = 'inline',
    virt_lines = vim.list_slice(lines, 2),
    hl_mode = 'combine',
  })
end

--- A key for the state in which a request is made: the version of the text, and the cursor.
local function place(buf)
  return vim.inspect({ api.nvim_buf_get_changedtick(buf), api.nvim_win_get_cursor(0) })
end

local function cancel(buf)
  local state = states[buf]
  state.timer:stop()
  state.asked = nil
  state.due = nil -- the timer may have fired already, with its callback scheduled
  if state.request then
    state.client:cancel_request(state.request)
    state.request = nil
  end
end

--- Request items. With `step`, show the item that is `step` items further when the answer arrives.
local function ask(buf, kind, step)
  local state = states[buf]
  if not state or api.nvim_get_current_buf() ~= buf or state.client:is_stopped() then
    return
  end
  cancel(buf)
  state.asked = place(buf)
  local params = vim.lsp.util.make_position_params(0, state.client.offset_encoding)
  params.context = { triggerKind = kind }
  local answered = require('repoformer.ghost').asking(state.client, buf, params.position)
  local sent, request
  sent, request = state.client:request(METHOD, params, function(err, result)
    if states[buf] ~= state or state.request ~= request then
      return -- there is a newer request
    end
    state.request = nil
    if err then
      return
    end
    state.items, state.index = result and (result.items or result) or {}, 1
    state.complete = kind == INVOKED
    answered(state.items)
    if step then
      M.cycle(buf, step)
    else
      draw(buf)
      require('repoformer.ghost').tell_shown()
    end
  end, buf)
  state.request = sent and request or nil
end

function M.attach(client, buf)
  states[buf] = { client = client, timer = assert(vim.uv.new_timer()), items = {}, index = 1, complete = false }
  local group = api.nvim_create_augroup('repoformer.own.' .. buf, {})
  api.nvim_create_autocmd({ 'InsertEnter', 'CursorMovedI', 'TextChangedP' }, {
    group = group,
    buffer = buf,
    callback = function()
      local state = states[buf]
      -- Neovim delays an event until it has processed the keys that are already typed. So the event may be older than
      -- the last request, and then it must not replace the suggestion that the user requested.
      if state and state.asked ~= place(buf) then
        cancel(buf)
        draw(buf)
        local due = {}
        state.due = due
        state.timer:start(
          PAUSE_MS,
          0,
          vim.schedule_wrap(function()
            if state.due == due then
              ask(buf, AUTOMATIC)
            end
          end)
        )
      end
    end,
  })
  api.nvim_create_autocmd('InsertLeave', {
    group = group,
    buffer = buf,
    callback = function()
      M.dismiss(buf)
    end,
  })
  api.nvim_create_autocmd({ 'BufWipeout', 'LspDetach' }, {
    group = group,
    buffer = buf,
    callback = function(event)
      if states[buf] and (event.event == 'BufWipeout' or event.data.client_id == client.id) then
        states[buf].timer:close()
        states[buf] = nil
        api.nvim_del_augroup_by_id(group)
      end
    end,
  })
end

function M.hide(buf)
  if api.nvim_buf_is_valid(buf) then
    api.nvim_buf_clear_namespace(buf, M.namespace, 0, -1)
  end
end

function M.redraw(buf)
  draw(buf)
end

function M.dismiss(buf)
  if states[buf] then
    cancel(buf)
    states[buf].items = {}
  end
  M.hide(buf)
end

function M.cycle(buf, count)
  local state = states[buf]
  if not state or #state.items == 0 then
    return
  elseif not state.complete then
    ask(buf, INVOKED, count)
  else
    state.index = (state.index - 1 + count) % #state.items + 1
    draw(buf, true)
    require('repoformer.ghost').tell_shown()
  end
end

function M.trigger(buf)
  ask(buf, INVOKED)
end

return M
