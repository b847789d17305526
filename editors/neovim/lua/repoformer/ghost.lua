--- Ghost text: what is shown, and taking it over in whole or in part.
---
--- Neovim 0.12 asks and draws by itself (`repoformer.builtin`), 0.11 does neither (`repoformer.own`). Both leave the
--- same traces, the server's items and an extmark, and everything else works from these two: which item is on screen
--- is found by comparing them with the buffer's text, so nothing can get out of step. Text is inserted by our own code
--- in both: Neovim 0.12 would replace the range as it was when the server answered, and double what was typed since.

local api = vim.api

local M = {}

---@class repoformer.Shown
---@field item table The server's item
---@field client vim.lsp.Client
---@field rest string What of the item's text is still to come after the cursor
---@field row integer
---@field col integer The cursor, zero-based, in bytes

---@class repoformer.Answer
---@field client vim.lsp.Client
---@field items table[]

---@type table<integer, repoformer.Answer>
local answers = {}

local backend = vim.lsp.inline_completion and require('repoformer.builtin') or require('repoformer.own')

--- The server answered; its items are what can be on screen from now on.
function M.answered(client, buf, items)
  answers[buf] = { client = client, items = items }
end

function M.adopt(client)
  backend.adopt(client, M.answered)
end

--- The part of `item` that comes after the cursor; nil where the text before the cursor does not fit it.
local function rest_of(item, client, buf, row, col)
  local text = item.insertText
  if type(text) ~= 'string' then
    return nil
  end
  if not item.range then
    return text
  end
  local start = item.range.start
  if start.line > row then
    return nil
  end
  local first = api.nvim_buf_get_lines(buf, start.line, start.line + 1, false)[1]
  if not first then
    return nil
  end
  local from = vim.str_byteindex(first, client.offset_encoding, start.character, false)
  if start.line == row and from > col then
    return nil
  end
  local typed = table.concat(api.nvim_buf_get_text(buf, start.line, from, row, col, {}), '\n')
  return vim.startswith(text, typed) and text:sub(#typed + 1) or nil
end

--- The text of the extmark that draws the ghost text, and its position; nil where none is drawn.
local function drawn(buf)
  local mark = api.nvim_buf_get_extmarks(buf, backend.namespace, 0, -1, { details = true })[1]
  if not mark then
    return nil
  end
  local details = mark[4]
  local lines = { details.virt_text or {} }
  vim.list_extend(lines, details.virt_lines or {})
  local texts = vim.tbl_map(function(line)
    local text = ''
    for _, chunk in ipairs(line) do
      local highlights = type(chunk[2]) == 'table' and chunk[2] or { chunk[2] }
      if not vim.list_contains(highlights, 'ComplHintMore') then -- the "(1/3)" while cycling
        text = text .. chunk[1]
      end
    end
    return text
  end, lines)
  return table.concat(texts, '\n'), mark[2], mark[3]
end

--- What is on screen in the current window, if it belongs to the text before the cursor.
---@return repoformer.Shown?
function M.shown()
  local buf = api.nvim_get_current_buf()
  local answer = answers[buf]
  local text, mark_row, mark_col = drawn(buf)
  if not answer or not text then
    return nil
  end
  local row, col = unpack(api.nvim_win_get_cursor(0))
  row = row - 1
  if mark_row ~= row or mark_col < col then
    return nil
  end
  for _, item in ipairs(answer.items) do
    local rest = rest_of(item, answer.client, buf, row, col)
    -- What already stands behind the cursor, Neovim 0.12 does not draw once more.
    if rest and rest ~= '' and rest:sub(mark_col - col + 1) == text then
      return { item = item, client = answer.client, rest = rest, row = row, col = col }
    end
  end
end

--- Take ghost text off the screen that no longer goes with what is typed. A slow model can take seconds to follow.
local function drop_stale(buf)
  if drawn(buf) and not M.shown() then
    api.nvim_buf_clear_namespace(buf, backend.namespace, 0, -1)
  end
end

---@param text string
---@param how 'all'|'word'|'line'
---@return string
function M.part(text, how)
  if how == 'word' then
    return text:match('^%s*[%w_\128-\255]+') or text:match('^%s*[^%w_%s\128-\255]+') or text
  elseif how == 'line' then
    return text:match('^\n?[^\n]+') or text
  end
  return text
end

--- Insert ghost text at the cursor: all of it, a word or a line. False where none is shown.
---@param how 'all'|'word'|'line'
---@return boolean
function M.insert(how)
  local shown = M.shown()
  if not shown then
    return false
  end
  local buf = api.nvim_get_current_buf()
  local text = M.part(shown.rest, how)
  local lines = vim.split(text, '\n', { plain = true })
  api.nvim_buf_set_text(buf, shown.row, shown.col, shown.row, shown.col, lines)
  local last = #lines[#lines] + (#lines == 1 and shown.col or 0)
  api.nvim_win_set_cursor(0, { shown.row + #lines, last })
  if text == shown.rest then
    backend.hide(buf)
    if shown.item.command then
      shown.client:exec_cmd(shown.item.command, { bufnr = buf })
    end
  else
    backend.redraw(buf)
    local whole = #shown.item.insertText - #shown.rest + #text
    shown.client:notify('textDocument/didPartiallyAcceptCompletion', {
      item = shown.item,
      acceptedLength = vim.str_utfindex(shown.item.insertText, 'utf-16', whole),
    })
  end
  return true
end

--- Whether <Tab> is to indent: as in VS Code, it does where the line is still blank and the suggestion begins with an
--- indentation of its own.
local function indents(shown)
  local before = api.nvim_get_current_line():sub(1, shown.col)
  return before:match('^%s*$') ~= nil and shown.rest:match('^[ \t]') ~= nil
end

--- Whether an entry of the popup menu is selected; keys then belong to the menu.
local function choosing()
  return vim.fn.pumvisible() == 1 and vim.fn.complete_info({ 'selected' }).selected >= 0
end

--- For an expression mapping: the keys that accept, or nil where the key has to do what it did without us.
---@param how 'all'|'word'|'line'
---@param key string
---@return string?
function M.keys(how, key)
  local shown = M.shown()
  if not shown or choosing() or (key:lower() == '<tab>' and indents(shown)) then
    return nil
  end
  -- An undo point on either side: `u` takes the accepted text back, and nothing else.
  return ('<C-g>u<Cmd>lua require("repoformer.ghost").insert("%s")<CR><C-g>u'):format(how)
end

--- Tell the server which item is on screen.
function M.tell_shown()
  local shown = M.shown()
  if shown then
    shown.client:notify('textDocument/didShowCompletion', { item = shown.item })
  end
end

--- Take the ghost text off the screen and forget what was asked.
function M.dismiss()
  backend.dismiss(api.nvim_get_current_buf())
end

--- Show the next item, or the one `count` further on. Automatic requests bring one item: the others are asked for now.
---@param count integer
function M.cycle(count)
  backend.cycle(api.nvim_get_current_buf(), count)
end

--- Ask now, without waiting for a pause in the typing.
function M.trigger()
  backend.trigger(api.nvim_get_current_buf())
end

--- Tell the server that this buffer is in front, and where its cursor is: it reads ahead there.
local function tell_focus(client, buf)
  vim.schedule(function() -- the cursor gets to its old place only behind `BufEnter`
    if buf == api.nvim_get_current_buf() and not client:is_stopped() then
      client:notify('textDocument/didFocus', vim.lsp.util.make_position_params(0, client.offset_encoding))
    end
  end)
end

---@param client vim.lsp.Client
---@param buf integer
function M.attach(client, buf)
  if not client.server_capabilities.inlineCompletionProvider then
    return
  end
  backend.attach(client, buf)
  if buf == api.nvim_get_current_buf() and vim.startswith(api.nvim_get_mode().mode, 'i') then
    vim.schedule(M.trigger) -- somebody typed while the server started
  end
  tell_focus(client, buf)
  local group = api.nvim_create_augroup('repoformer.ghost.' .. buf, {})
  api.nvim_create_autocmd('BufEnter', {
    group = group,
    buffer = buf,
    callback = function()
      tell_focus(client, buf)
    end,
  })
  api.nvim_create_autocmd({ 'CursorMovedI', 'TextChangedI', 'TextChangedP' }, {
    group = group,
    buffer = buf,
    callback = function()
      drop_stale(buf)
    end,
  })
  api.nvim_create_autocmd({ 'BufWipeout', 'LspDetach' }, {
    group = group,
    buffer = buf,
    callback = function(event)
      if event.event == 'BufWipeout' or event.data.client_id == client.id then
        backend.hide(buf)
        answers[buf] = nil
        api.nvim_del_augroup_by_id(group)
      end
    end,
  })
end

return M
