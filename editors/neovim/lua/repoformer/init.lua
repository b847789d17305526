--- Inline code completion by a model on this machine, through repoformer-lsp. `:help repoformer` is the manual.

local M = {}

---@class repoformer.Options
---@field cmd? string[] How to start the server; nil: what `:Repoformer install` installed, else what is on the PATH
---@field package? string What `:Repoformer install` installs: a package, a wheel, an address or a folder
---@field filetypes? string[] The file types for which to start the server; nil: every language that it knows
---@field settings? table The server's settings, as in `{ policy = 'always', threads = 4 }`
---@field keys? table<string, string|false> Keys in insert mode, by action; false: no key

---@type repoformer.Options
local defaults = {
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

--- The mappings that this module has made.
---@type table<function, true>
local ours = {}

--- Keep the earlier mapping of a key under another name. Returns the keys that do what the key did before.
---@param key string
---@param name string
---@return string
local function before(key, name)
  local raw = vim.keycode(key)
  for _, map in ipairs(vim.api.nvim_get_keymap('i')) do
    if map.lhsraw == raw or map.lhsrawalt == raw then
      if not (map.callback and ours[map.callback]) then -- the mapping is ours if `setup` was called before
        map.lhs, map.lhsraw, map.lhsrawalt = name, vim.keycode(name), nil
        vim.fn.mapset('i', false, map)
      end
      return vim.fn.maparg(name, 'i') ~= '' and name or key
    end
  end
  return key
end

--- Map `key` to run `does` if `wanted` returns true, else its earlier mapping. Both become mappings of their own: the
--- expression that chooses between them runs under |textlock|, and could not edit the text.
---@param key string|false
---@param action string Its name in `keys`
---@param wanted fun(): boolean
---@param does string
---@param what string
local function map_if(key, action, wanted, does, what)
  if not key then
    return
  end
  local plug = ('<Plug>(repoformer-%s)'):format(action)
  local otherwise = before(key, ('<Plug>(repoformer-before-%s)'):format(action))
  vim.keymap.set('i', plug, does)
  local function keys()
    return wanted() and plug or otherwise
  end
  ours[keys] = true
  vim.keymap.set('i', key, keys, { expr = true, remap = true, desc = what })
end

---@param keys table<string, string|false>
local function map_keys(keys)
  local function accepting(action, how, what)
    -- An undo point on either side: `u` removes the accepted text and nothing else.
    local does = ('<C-g>u<Cmd>lua require("repoformer.ghost").insert("%s")<CR><C-g>u'):format(how)
    map_if(keys[action], action, function()
      return require('repoformer.ghost').acceptable(how, keys[action])
    end, does, what)
  end
  local function calling(key, call, what)
    if key then
      vim.keymap.set('i', key, call, { desc = what })
    end
  end
  accepting('accept', 'all', 'Accept the suggestion')
  accepting('accept_word', 'word', "Accept the suggestion's next word")
  accepting('accept_line', 'line', "Accept the suggestion's next line")
  calling(keys.next, function()
    require('repoformer.ghost').cycle(1)
  end, 'Show the next suggestion')
  calling(keys.previous, function()
    require('repoformer.ghost').cycle(-1)
  end, 'Show the previous suggestion')
  map_if(keys.dismiss, 'dismiss', function()
    return require('repoformer.ghost').visible()
  end, '<Cmd>lua require("repoformer.ghost").dismiss()<CR>', 'Dismiss the suggestion')
  calling(keys.trigger, function()
    require('repoformer.ghost').trigger()
  end, 'Suggest now')
end

--- Start the server for every file of a language that it knows, and map the keys.
---@param options? repoformer.Options
function M.setup(options)
  local chosen = vim.tbl_deep_extend('force', defaults, options or {})
  map_keys(chosen.keys)
  require('repoformer.install').package = chosen.package or require('repoformer.install').package
  local cmd = chosen.cmd or require('repoformer.server').command()
  local settings = next(chosen.settings) and chosen.settings or vim.empty_dict()
  vim.lsp.config('repoformer', {
    cmd = cmd,
    filetypes = chosen.filetypes,
    settings = { repoformer = settings },
  })
  if vim.fn.executable(cmd[1]) == 0 then
    -- If the server were enabled, Neovim would show an error for each file that is opened.
    vim.notify(
      chosen.cmd and ('repoformer: there is no program `%s`; correct `cmd` of `setup`'):format(cmd[1])
        or 'repoformer: the server is not installed yet; `:Repoformer install` installs it and a model',
      vim.log.levels.WARN
    )
    return
  end
  vim.lsp.enable('repoformer')
end

--- The server's status for 'statusline', in a few characters; see `repoformer.status`.
---@return string
function M.statusline()
  return require('repoformer.status').line()
end

return M
