--- Find the program to start: the server that `:Repoformer install` has installed, else the one on the PATH.

local M = {}

local windows = vim.fn.has('win32') == 1

--- The folder of the environment that `:Repoformer install` makes.
---@return string
function M.environment()
  return vim.fs.joinpath(vim.fn.stdpath('data') --[[@as string]], 'repoformer', 'server')
end

--- The command that starts the server. If no server is installed, its program does not exist.
---@return string[]
function M.command()
  local folder = M.environment()
  local program = windows and { 'Scripts', 'repoformer-lsp.exe' } or { 'bin', 'repoformer-lsp' }
  local own = vim.fs.joinpath(folder, unpack(program))
  -- The installation writes this file last: without it the environment is incomplete.
  local complete = vim.uv.fs_stat(vim.fs.joinpath(folder, 'repoformer-lsp.installed'))
  return { complete and vim.fn.executable(own) == 1 and own or 'repoformer-lsp' }
end

return M
