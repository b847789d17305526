--- Neovim 0.12 and later: `vim.lsp.inline_completion` asks and draws. Beside it we only listen to the server's answers,
--- because the items are not to be had from it without accepting one.

local api = vim.api

local M = { namespace = api.nvim_create_namespace('nvim.lsp.inline_completion') }

local METHOD = 'textDocument/inlineCompletion'
-- A newer request took the older one's place, or the text has changed: no news, and nothing for Neovim's log.
local OVERTAKEN = { [-32800] = true, [-32801] = true, [-32802] = true }

function M.adopt(client, answered)
  local request = client.request
  client.request = function(self, method, params, handler, buf)
    if method ~= METHOD or not handler then
      return request(self, method, params, handler, buf)
    end
    return request(self, method, params, function(err, result, context, ...)
      if err and OVERTAKEN[err.code] then
        return
      end
      local items = result and (result.items or result) or {}
      answered(client, context.bufnr, items)
      handler(err, result, context, ...)
      if items[1] and #api.nvim_buf_get_extmarks(context.bufnr, M.namespace, 0, -1, {}) > 0 then
        require('repoformer.ghost').tell_shown(client, items[1])
      end
    end, buf)
  end
end

function M.attach(client, _)
  vim.lsp.inline_completion.enable(true, { client_id = client.id })
end

--- Only the drawing goes away: a request that was made for what is typed now is still wanted.
function M.hide(buf)
  if api.nvim_buf_is_valid(buf) then
    api.nvim_buf_clear_namespace(buf, M.namespace, 0, -1)
  end
end

--- It draws again by itself once the cursor has moved.
function M.redraw(_) end

function M.dismiss(buf)
  -- Neovim's way to take back what is shown and what is asked for is to accept it and then not to want it.
  vim.lsp.inline_completion.get({ bufnr = buf, on_accept = function() end })
  M.hide(buf)
end

function M.cycle(_, count)
  vim.lsp.inline_completion.select({ count = count })
end

--- It has no call that asks; what it does when the cursor moves is to ask, a moment later.
function M.trigger(buf)
  api.nvim_exec_autocmds('CursorMovedI', { buffer = buf, modeline = false })
end

return M
