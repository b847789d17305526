--- For Neovim 0.12 and later, in which `vim.lsp.inline_completion` requests and draws suggestions. This module also
--- reads the server's answers, because Neovim gives access to an item only by accepting it.

local api = vim.api

-- All servers draw in this namespace.
local M = { namespace = api.nvim_create_namespace('nvim.lsp.inline_completion'), shared = true }

local METHOD = 'textDocument/inlineCompletion'
local INVOKED = 1
-- A newer request replaced this one, or the text has changed: not worth an entry in Neovim's log.
local OVERTAKEN = { [-32800] = true, [-32801] = true, [-32802] = true }

--- The buffers for which the user requested items, until the request is sent. The value says how many items further to
--- go when the answer arrives.
---@type table<integer, integer>
local invoked = {}

--- The buffers whose items the user requested: their lists are complete.
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
      if result then -- without a result, Neovim keeps the earlier items
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

--- Remove only the drawing: a request for the current text may be in progress.
function M.hide(buf)
  if api.nvim_buf_is_valid(buf) then
    api.nvim_buf_clear_namespace(buf, M.namespace, 0, -1)
  end
end

--- Neovim draws again when the cursor moves.
function M.redraw(_) end

function M.dismiss(buf)
  -- To dismiss items and requests, Neovim needs an `on_accept` that inserts nothing.
  vim.lsp.inline_completion.get({ bufnr = buf, on_accept = function() end })
  M.hide(buf)
end

--- Make Neovim send a request. Neovim has no function for this, but sends a request shortly after the cursor moves. It
--- marks all its requests as automatic; `adopt` changes that mark.
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
