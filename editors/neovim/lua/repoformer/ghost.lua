--- Ghost text: what is shown, and accepting all or part of it.
---
--- Neovim 0.12 requests and draws by itself (`repoformer.builtin`); Neovim 0.11 does neither (`repoformer.own`). With
--- either of these modules, there are the server's items and an extmark that draws the ghost text. Comparing both with
--- the buffer's text shows which item is on screen, so there is no state that could become wrong. This module inserts
--- the text in both versions: Neovim 0.12 would replace the range as it was when the server answered, and so double the
--- text that was typed since.

local api = vim.api

local M = {}

---@class repoformer.Shown
---@field item table The server's item
---@field client vim.lsp.Client
---@field rest string The part of the item's text after the cursor
---@field row integer
---@field col integer The cursor, zero-based, in bytes

---@class repoformer.Answer
---@field client vim.lsp.Client
---@field items table[]
---@field behind string The text after the cursor at the time of the request

---@type table<integer, repoformer.Answer>
local answers = {}

local backend = vim.lsp.inline_completion and require('repoformer.builtin') or require('repoformer.own')

--- An LSP position in bytes; nil if the buffer has no such line.
---@return integer? col
local function column(client, buf, position)
  local line = api.nvim_buf_get_lines(buf, position.line, position.line + 1, false)[1]
  return line and vim.str_byteindex(line, client.offset_encoding, position.character, false)
end

--- A key for the text after a place: the rest of the line, and the number of lines that follow. The key does not change
--- while the user types the suggested text. It does change if a plugin inserts a closing bracket or the end of a block,
--- which the suggestion would then insert again.
local function behind(buf, row, col)
  local line = api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ''
  return ('%s\n%d'):format(line:sub(col + 1), api.nvim_buf_line_count(buf) - row)
end

--- Record a request. Returns a function to call with the items of the answer, just before they can be on screen.
---@param client vim.lsp.Client
---@param buf integer
---@param position lsp.Position
---@return fun(items: table[])
function M.asking(client, buf, position)
  local found = behind(buf, position.line, column(client, buf, position) or 0)
  return function(items)
    answers[buf] = { client = client, items = items, behind = found }
  end
end

function M.adopt(client)
  backend.adopt(client)
end

--- The part of `item` after a cursor; nil if the text around the cursor does not match. The range of an item ends at
--- the cursor of its request. (It could end later only if a request named the selected entry of the popup menu.
--- Neovim's requests do not.)
---@return string?
local function rest_of(item, answer, buf, row, col)
  local text, start = item.insertText, item.range.start
  local from = start.line <= row and column(answer.client, buf, start)
  if not from or (start.line == row and from > col) then
    return nil
  end
  local typed = table.concat(api.nvim_buf_get_text(buf, start.line, from, row, col, {}), '\n')
  if vim.startswith(text, typed) and behind(buf, row, col) == answer.behind then
    return text:sub(#typed + 1)
  end
end

--- The part to draw of an item of the last answer, at the cursor of the current window.
---@return string?
function M.rest(item)
  local buf = api.nvim_get_current_buf()
  local row, col = unpack(api.nvim_win_get_cursor(0))
  local rest = answers[buf] and rest_of(item, answers[buf], buf, row - 1, col)
  return rest ~= '' and rest or nil
end

--- The text of the extmark that draws the ghost text, and its position; nil if none is drawn.
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

--- What is on screen in the current window, if it belongs to the text around the cursor.
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
    local rest = rest_of(item, answer, buf, row, col)
    -- Neovim 0.12 does not draw what is already after the cursor.
    if rest and rest ~= '' and rest:sub(mark_col - col + 1) == text then
      return { item = item, client = answer.client, rest = rest, row = row, col = col }
    end
  end
end

--- Whether the drawn ghost text is one of our items, even if it no longer matches the buffer. This needs a comparison,
--- because all servers share a namespace in Neovim 0.12.
local function ours(buf)
  local text = drawn(buf)
  if not text or not backend.shared then
    return text ~= nil
  end
  return vim.iter(answers[buf] and answers[buf].items or {}):any(function(item)
    return vim.endswith(item.insertText, text)
  end)
end

--- Whether another server's ghost text is on screen. Only then may Neovim accept: otherwise it would accept an item
--- that was dismissed.
local function theirs(buf)
  return drawn(buf) ~= nil and not ours(buf)
end

--- Remove ghost text that no longer matches the buffer, because a slow model may need seconds for the next answer.
function M.drop_stale()
  local buf = api.nvim_get_current_buf()
  if not M.shown() and ours(buf) then
    backend.hide(buf)
  end
end

---@param text string
---@param how 'all'|'word'|'line'
---@return string
function M.part(text, how)
  if how == 'word' then
    return text:match('^%s*[%w_\128-\255]+') or text:match('^%s*[^%w_%s\128-\255]+') or text
  elseif how == 'line' then
    return text:match('^\n*[^\n]+') or text
  end
  return text
end

--- Insert ghost text at the cursor: all of it, a word or a line. Returns false if none is shown. If the ghost text is
--- another server's, let Neovim accept it.
---@param how 'all'|'word'|'line'
---@return boolean
function M.insert(how)
  local shown, buf = M.shown(), api.nvim_get_current_buf()
  if not shown then
    return how == 'all' and theirs(buf) and vim.lsp.inline_completion.get()
  end
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

--- Whether <Tab> indents. As in VS Code, it does if the line is blank and the suggestion begins with an indentation.
local function indents(shown)
  local before = api.nvim_get_current_line():sub(1, shown.col)
  return before:match('^%s*$') ~= nil and shown.rest:match('^[ \t]') ~= nil
end

--- Whether an entry of the popup menu is selected; keys then belong to the menu.
local function choosing()
  return vim.fn.pumvisible() == 1 and vim.fn.complete_info({ 'selected' }).selected >= 0
end

--- Whether there is ghost text that `key` can accept. If not, the key does what it did before `setup`.
---@param how 'all'|'word'|'line'
---@param key string
---@return boolean
function M.acceptable(how, key)
  local shown = M.shown()
  if choosing() then
    return false
  elseif not shown then
    return how == 'all' and theirs(api.nvim_get_current_buf())
  end
  return key:lower() ~= '<tab>' or not indents(shown)
end

--- Whether ghost text of any server is on screen.
---@return boolean
function M.visible()
  return drawn(api.nvim_get_current_buf()) ~= nil
end

--- Tell the server which item is on screen.
function M.tell_shown()
  M.drop_stale() -- Neovim 0.12 draws an answer even if the text has changed since the request
  local shown = M.shown()
  if shown then
    shown.client:notify('textDocument/didShowCompletion', { item = shown.item })
  end
end

--- Remove the ghost text and drop the answers of earlier requests.
function M.dismiss()
  backend.dismiss(api.nvim_get_current_buf())
end

--- Show the item that is `count` items further. An automatic request gets only one item, so request the others first.
---@param count integer
function M.cycle(count)
  backend.cycle(api.nvim_get_current_buf(), count)
end

--- Request a suggestion now, without waiting for a pause in the typing.
function M.trigger()
  backend.trigger(api.nvim_get_current_buf())
end

--- Tell the server that this buffer is in front, and where its cursor is: the server evaluates the prompt there.
local function tell_focus(client, buf)
  vim.schedule(function() -- Neovim restores the cursor after `BufEnter`
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
    -- The user typed while the server started. Neovim may register for the events only after this function returns.
    vim.schedule(vim.schedule_wrap(M.trigger))
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
      M.drop_stale()
      vim.schedule(M.drop_stale) -- Neovim draws at the same events, possibly after this callback
    end,
  })
  api.nvim_create_autocmd({ 'BufWipeout', 'LspDetach' }, {
    group = group,
    buffer = buf,
    callback = function(event)
      if event.event == 'BufWipeout' or event.data.client_id == client.id then
        if api.nvim_buf_is_valid(buf) and ours(buf) then
          backend.hide(buf)
        end
        answers[buf] = nil
        api.nvim_del_augroup_by_id(group)
      end
    end,
  })
end

return M
