--- Inline code completion by a model on this machine, through repoformer-lsp. `:help repoformer` is the manual.

local M = {}

---@class repoformer.Options
---@field cmd? string[] How to start the server
---@field filetypes? string[] Where to start it; nil: every language that it knows
---@field settings? table The server's settings, as in `{ policy = 'always', threads = 4 }`
---@field keys? table<string, string|false> Keys in insert mode by what they do; false: no key

---@type repoformer.Options
local defaults = {
  cmd = { 'repoformer-lsp' },
  settings = {},
  keys = {
    accept = '<Tab>',
    accept_word = '<M-Right>',
    accept_line = '<M-C-Right>',
    next = '<M-]>',
    previous = '<M-[>',
    dismiss = '<C-]>',
    trigger = '<M-Bslash>',
  },
}

--- What a key did before it was ours, for when no ghost text is shown.
local function before(key)
  local map = vim.fn.maparg(key, 'i', false, true)
  if vim.tbl_isempty(map) then
    return function()
      return key
    end
  end
  return function()
    local keys
    if map.callback then
      keys = map.callback()
    elseif map.expr == 1 then
      keys = vim.api.nvim_eval((map.rhs:gsub('<SID>', ('<SNR>%d_'):format(map.sid))))
    else
      keys = map.rhs
    end
    if map.callback and map.expr ~= 1 then
      return ''
    end
    if map.noremap == 0 and type(keys) == 'string' then -- a <Plug> mapping wants to be mapped on
      vim.api.nvim_feedkeys(vim.keycode(keys), 'm', false)
      return ''
    end
    return keys or ''
  end
end

local function map_keys(keys)
  local function accepting(key, how, what)
    if key then
      local fall_back = before(key)
      vim.keymap.set('i', key, function()
        return require('repoformer.ghost').keys(how, key) or fall_back()
      end, { expr = true, replace_keycodes = true, desc = what })
    end
  end
  local function calling(key, call, what)
    if key then
      vim.keymap.set('i', key, call, { desc = what })
    end
  end
  accepting(keys.accept, 'all', 'Accept the suggestion')
  accepting(keys.accept_word, 'word', "Accept the suggestion's next word")
  accepting(keys.accept_line, 'line', "Accept the suggestion's next line")
  calling(keys.next, function()
    require('repoformer.ghost').cycle(1)
  end, 'Show the next suggestion')
  calling(keys.previous, function()
    require('repoformer.ghost').cycle(-1)
  end, 'Show the suggestion before')
  calling(keys.dismiss, function()
    require('repoformer.ghost').dismiss()
  end, 'Take the suggestion off the screen')
  calling(keys.trigger, function()
    require('repoformer.ghost').trigger()
  end, 'Ask for a suggestion now')
end

--- Start the server for every file of a language that it knows, and map the keys.
---@param options? repoformer.Options
function M.setup(options)
  local chosen = vim.tbl_deep_extend('force', defaults, options or {})
  map_keys(chosen.keys)
  local settings = next(chosen.settings) and chosen.settings or vim.empty_dict()
  vim.lsp.config('repoformer', {
    cmd = chosen.cmd,
    filetypes = chosen.filetypes,
    settings = { repoformer = settings },
  })
  if vim.fn.executable(chosen.cmd[1]) == 0 then
    -- Neovim itself would say so again with every file that is opened.
    vim.notify(
      ('repoformer: there is no program `%s`. Install it (`uv tool install repoformer-lsp`), or name it: '):format(
        chosen.cmd[1]
      ) .. "setup{ cmd = { '/path/to/repoformer-lsp' } }",
      vim.log.levels.WARN
    )
    return
  end
  vim.lsp.enable('repoformer')
end

--- The line that `:Repoformer status` shows, short; see `repoformer.status`.
---@return string
function M.statusline()
  return require('repoformer.status').line()
end

return M
