--- `:Repoformer` and its table of actions.

local M = {}

--- The folder of the server's logs, as the Python package platformdirs chooses it.
local function log_directory()
  if vim.fn.has('mac') == 1 then
    return vim.fs.joinpath(vim.env.HOME, 'Library', 'Logs', 'repoformer-lsp')
  elseif vim.fn.has('win32') == 1 then
    return vim.fs.joinpath(vim.env.LOCALAPPDATA, 'repoformer-lsp', 'Logs')
  end
  local state = vim.env.XDG_STATE_HOME
  if not state or state == '' then
    state = vim.fs.joinpath(vim.env.HOME, '.local', 'state')
  end
  return vim.fs.joinpath(state, 'repoformer-lsp', 'log')
end

local function log()
  local files = vim.fn.glob(vim.fs.joinpath(log_directory(), 'server-*.log'), false, true)
  table.sort(files)
  if #files == 0 then
    vim.notify('repoformer: no log yet in ' .. log_directory())
    return
  end
  vim.cmd.split(vim.fn.fnameescape(files[#files]))
  vim.bo.autoread, vim.bo.readonly = true, true
  vim.cmd('normal! G')
end

local function status()
  local now = require('repoformer.status').of(0)
  if not now then
    vim.notify('repoformer: no server runs for this buffer')
    return
  end
  local parts = { ('repoformer: %s'):format(now.message) }
  if require('repoformer.status').off_here(0) then
    table.insert(parts, ('off for %s'):format(vim.bo.filetype))
  end
  if now.model and now.model ~= '' then
    table.insert(parts, ('model %s, policy %s, suggest %s'):format(now.model, now.policy, now.suggest))
  end
  vim.notify(table.concat(parts, '; '))
end

local function doctor()
  vim.cmd('botright new')
  vim.fn.jobstart(require('repoformer.doctor').command(), { term = true })
end

local function model()
  local clients = vim.lsp.get_clients({ name = 'repoformer' })
  if #clients == 0 then
    vim.notify('repoformer: no server runs')
    return
  end
  clients[1]:request('workspace/executeCommand', { command = 'repoformer.getModel', arguments = {} })
end

local settings = require('repoformer.settings')

--- An action that sets a setting. Without a value it shows the status, which has the current one.
---@param name 'policy'|'suggest'
---@param values string[]
local function choice(name, values)
  local function run(value)
    if value then
      settings.set(name, value)
    else
      status()
    end
  end
  return { run = run, arguments = values }
end

---@type table<string, { run: fun(argument?: string), arguments?: string[] }>
local actions = {
  status = { run = status },
  why = {
    run = function()
      require('repoformer.why').open()
    end,
  },
  pause = {
    run = function(scope)
      settings.pause(scope or 'all')
    end,
    arguments = { 'all', 'language' },
  },
  resume = { run = settings.resume },
  policy = choice('policy', { 'selective', 'always', 'never' }),
  suggest = choice('suggest', { 'eager', 'balanced', 'careful' }),
  model = { run = model },
  log = { run = log },
  doctor = { run = doctor },
  install = {
    run = function(what)
      local install = require('repoformer.install')
      if what == 'cancel' then
        install.cancel()
      else
        install.run()
      end
    end,
    arguments = { 'cancel' },
  },
  restart = {
    run = function()
      require('repoformer.restart').now()
    end,
  },
}

---@param words string[]
function M.run(words)
  local action = actions[words[1] or 'status']
  if not action or (words[2] and not vim.list_contains(action.arguments or {}, words[2])) then
    vim.notify('repoformer: there is no `:Repoformer ' .. table.concat(words, ' ') .. '`', vim.log.levels.ERROR)
    return
  end
  action.run(words[2])
end

---@return string[]
function M.complete(lead, line)
  local words = vim.split(line, '%s+')
  local options = vim.tbl_keys(actions)
  if #words > 2 then
    options = (actions[words[2]] or {}).arguments or {}
  end
  options = vim.tbl_filter(function(option)
    return vim.startswith(option, lead)
  end, options)
  table.sort(options)
  return options
end

return M
