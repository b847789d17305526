--- The command line of the server's `doctor`, made from the one that starts the server.

local M = {}

--- `doctor` goes behind the program's name, which need not be the first word (`uvx repoformer-lsp`). Of what follows
--- there, it knows the model alone.
---@return string[]
function M.command()
  local cmd = vim.lsp.config.repoformer.cmd --[[@as string[] ]]
  local program, model = #cmd, {}
  for i, word in ipairs(cmd) do
    if vim.fs.basename(word):match('^repoformer%-lsp') then
      program, model = i, {}
    elseif word == '--model' then
      model = { word, cmd[i + 1] }
    end
  end
  return vim.iter({ vim.list_slice(cmd, 1, program), 'doctor', program < #cmd and model or {} }):flatten():totable()
end

return M
