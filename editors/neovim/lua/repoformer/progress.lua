--- Show the progress of the server's downloads (`$/progress`), because Neovim itself does not show it.

local M = {}

--- Follow the downloads of a client.
---@param client_id integer
function M.follow(client_id)
  ---@type table<string|integer, string>
  local downloads = {}
  vim.api.nvim_create_autocmd('LspProgress', {
    group = vim.api.nvim_create_augroup('repoformer.progress.' .. client_id, {}),
    callback = function(event)
      local token, value = event.data.params.token, event.data.params.value
      if event.data.client_id ~= client_id then
        return
      elseif value.kind == 'begin' and value.title:find('Downloading', 1, true) then
        downloads[token] = value.title
      end
      if downloads[token] then
        local progress = { message = downloads[token], percent = value.percentage }
        local ended = value.kind == 'end'
        require('repoformer.install').show(not ended and progress or nil)
        downloads[token] = not ended and downloads[token] or nil
      end
    end,
  })
end

return M
