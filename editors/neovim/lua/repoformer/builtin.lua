--- Neovim 0.12 and later: `vim.lsp.inline_completion` asks and draws. Beside it we only listen to the server's answers,
--- because the items are not to be had from it without accepting one.

local api = vim.api

-- All servers draw in this namespace.
local M = { namespace = api.nvim_create_namespace('nvim.lsp.inline_completion'), shared = true }

local METHOD = 'textDocument/inlineCompletion'
local INVOKED = 1
-- A newer request took the older one's place, or the text has changed: no news, and nothing for Neovim's log.
local OVERTAKEN = { [-32800] = true, [-32801] = true, [-32802] = true }

--- Buffers whose next request a person wants, and by how many items to move on once it is answered.
---@type table<integer, integer>
local invoked = {}

--- The buffers whose items a person asked for: all that the server has.
---@type table<integer, boolean>
local complete = {}

function M.adopt(client)
  local request = client.request
  client.request = function(self, method, params, handler, buf)
    if method ~= METHOD or not handler then
      return request(self, method, params, handler, buf)
    end
    local step = invoked[buf]
    invoked[buf] = nil
    if step then
      params.context.triggerKind = INVOKED
    end
    local ghost = require('repoformer.ghost')
    local answered = ghost.asking(client, buf, params.position)
    return request(self, method, params, function(err, result, context, ...)
      if err and OVERTAKEN[err.code] then
        return
      end
      if result then -- else Neovim keeps what it has
        answered(result.items or result)
      end
      complete[context.bufnr] = step ~= nil
      handler(err, result, context, ...)
      if step and step ~= 0 then
        M.cycle(context.bufnr, step)
      else
        ghost.tell_shown()
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

--- Neovim has no call that asks, and always says that nobody wanted it. But it asks, a moment later, when the cursor
--- moves; that request is then made one that a person wants.
local function invoke(buf, step)
  invoked[buf] = step
  api.nvim_exec_autocmds('CursorMovedI', { buffer = buf, modeline = false })
end

function M.cycle(buf, count)
  if complete[buf] then
    vim.lsp.inline_completion.select({ bufnr = buf, count = count })
    require('repoformer.ghost').tell_shown()
  else
    invoke(buf, count)
  end
end

function M.trigger(buf)
  invoke(buf, 0)
end

return M
