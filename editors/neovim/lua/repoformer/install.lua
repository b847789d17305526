--- `:Repoformer install`: run `install.py`, which installs the server and a model, and show its progress.
---
--- Any Python runs the script; if there is none, uv downloads one.

local M = {}

local GET_PYTHON = "Install Python 3.10 or later from python.org or your system's packages, "
  .. 'or uv from docs.astral.sh/uv, then run `:Repoformer install` again.'

--- What is installed: the name of a package, a wheel, an address or a folder. `setup{ package = … }` sets it.
M.package = 'repoformer-lsp'

---@type vim.SystemObj?
local running
local cancelled = false

--- The last progress, for the status line; nil while no installation runs.
---@type { message: string, percent?: integer }?
M.progress = nil

---@param text string
---@param level? integer
local function tell(text, level)
  vim.notify('repoformer: ' .. text, level or vim.log.levels.INFO)
end

--- A command that can run a Python script; empty if there is none.
---@return string[]
local function python()
  local windows = vim.fn.has('win32') == 1
  for _, name in ipairs(windows and { 'py', 'python' } or { 'python3', 'python' }) do
    if vim.fn.executable(name) == 1 then
      return { name }
    end
  end
  for _, name in ipairs({ 'uv', '~/.local/bin/uv', '~/.cargo/bin/uv' }) do
    local path = vim.fn.expand(name)
    if vim.fn.executable(path) == 1 then
      return { path, 'run', '--no-project', '--python', '>=3.10' }
    end
  end
  return {}
end

--- Show the progress in the message area, where it replaces the last message, and in the status line.
---@param told { message: string, percent?: integer }? nil: the installation has ended
function M.show(told)
  M.progress = told
  require('repoformer.status').redraw()
  if not told then
    return
  end
  local percent = type(told.percent) == 'number' and (' %d%%'):format(told.percent) or ''
  local text = ('repoformer: %s%s'):format(told.message, percent)
  vim.api.nvim_echo({ { vim.fn.strcharpart(text, 0, vim.o.columns - 12) } }, false, {})
end

--- Start the newly installed server in every buffer whose language it knows.
local function start()
  vim.lsp.config('repoformer', { cmd = require('repoformer.server').command() })
  vim.lsp.enable('repoformer')
  require('repoformer.restart').now()
end

---@param outcome table
---@param written string[]
---@param program string
local function finish(outcome, written, program)
  if outcome.program then
    start()
    local warning = outcome.warning ~= '' and outcome.warning
    tell(outcome.message .. ' ' .. (warning or 'Open a file and type.'), warning and vim.log.levels.WARN or nil)
  elseif cancelled then
    tell('the installation is cancelled; `:Repoformer install` resumes it')
  elseif outcome.error then
    tell(('%s %s'):format(outcome.error, outcome.advice), vim.log.levels.ERROR)
  else
    local text = '%s cannot run the installation: %s. %s'
    tell(text:format(program, written[#written] or '', GET_PYTHON), vim.log.levels.ERROR)
  end
end

--- The lines that the last installation wrote to its log.
---@type string[]
M.log = {}

function M.run()
  if running then
    tell('the installation is already running')
    return
  end
  local command = python()
  if #command == 0 then
    tell('There is no Python on this machine. ' .. GET_PYTHON, vim.log.levels.ERROR)
    return
  end
  local here = debug.getinfo(1, 'S').source:sub(2) -- lua/repoformer/install.lua
  local script = vim.fs.joinpath(vim.fn.fnamemodify(here, ':p:h:h:h'), 'install.py')
  local words = { script, require('repoformer.server').environment(), '--package', M.package }
  vim.list_extend(words, { '--setting', '`package` of `setup`', '--again', 'run `:Repoformer install` again' })
  vim.list_extend(command, words)
  local outcome, rest = {}, ''
  M.log = {}
  local function read(_, data)
    rest = rest .. (data or '')
    for line, ending in rest:gmatch('([^\n]*)(\n)') do
      rest = rest:sub(#line + #ending + 1)
      local good, told = pcall(vim.json.decode, line)
      if good and (told.program or told.error) then
        outcome = told
      elseif good then
        vim.schedule(function()
          M.show(told)
        end)
      end
    end
  end
  local function read_log(_, data)
    for line in vim.gsplit(data or '', '\n', { trimempty = true }) do
      table.insert(M.log, line)
    end
  end
  cancelled = false
  M.show({ message = 'Starting the installation' })
  running = vim.system(command, { cwd = vim.uv.os_homedir(), stdout = read, stderr = read_log }, function()
    vim.schedule(function()
      running = nil
      M.show(nil)
      finish(outcome, M.log, command[1])
    end)
  end)
end

--- End a running installation, but keep its downloads.
function M.cancel()
  if running then
    cancelled = true
    running:kill('sigterm')
  end
end

return M
