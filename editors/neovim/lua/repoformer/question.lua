--- What the server asks (`window/showMessageRequest`: whether to download a better model), and the progress of it.
---
--- Neovim's own handler opens a prompt at once, which then takes the keys that are being typed. Here a question waits
--- until nothing has been typed in Normal mode for a moment.

local M = {}

local IDLE_MS = 1500

--- Call `ready` once nothing is being typed.
---@param ready fun()
local function when_idle(ready)
  local last_key = vim.uv.now()
  local listening = vim.on_key(function()
    last_key = vim.uv.now()
  end)
  local timer = assert(vim.uv.new_timer())
  timer:start(0, 250, vim.schedule_wrap(function()
    if timer:is_closing() or vim.api.nvim_get_mode().mode ~= 'n' or vim.uv.now() - last_key < IDLE_MS then
      return
    end
    timer:close()
    vim.on_key(nil, listening)
    ready()
  end))
end

--- Ask, and return what was chosen. Neovim calls this in a coroutine.
function M.ask(_, params)
  local asking = coroutine.running()
  when_idle(function()
    local options = {
      kind = 'lsp_message',
      prompt = 'repoformer: ' .. params.message,
      format_item = function(action)
        return action.title
      end,
    }
    vim.ui.select(params.actions or {}, options, function(choice)
      vim.schedule(function() -- not before the `yield` below
        coroutine.resume(asking, choice or vim.NIL)
      end)
    end)
  end)
  return coroutine.yield()
end

--- Follow the downloads of a client: Neovim draws no progress by itself.
---@param client_id integer
function M.follow(client_id)
  ---@type table<string|integer, string>
  local downloads = {}
  vim.api.nvim_create_autocmd('LspProgress', {
    group = vim.api.nvim_create_augroup('repoformer.progress', {}),
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
