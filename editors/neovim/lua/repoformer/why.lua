--- `:Repoformer why`: a report on the last completion (`repoformer/why`) with links to files.

local api = vim.api

local M = {}

--- The decision as a sentence.
local function verdict(decision)
  if type(decision) ~= 'table' then
    return 'No decision was made.'
  end
  local without = decision.deferred and '**other files are being read for the next one**' or '**this file was enough**'
  local outcome = decision.retrieve and '**other files were read**' or without
  if decision.source == 'policy' then
    return ('The policy decided, without the model: %s.'):format(outcome)
  end
  local what = decision.source == 'similarity' and 'Similarity of the best code found' or 'P(retrieve)'
  local when = decision.held and ', decided earlier on this line' or ''
  return ('%s %.3f against a threshold of %.3f%s: %s.'):format(
    what,
    decision.p_retrieve,
    decision.threshold,
    when,
    outcome
  )
end

--- Whether the suggestion is likely enough to be kept, as a sentence.
local function kept(report)
  local estimate = report.estimate
  if type(estimate) ~= 'table' then
    return 'It was not estimated whether you keep the suggestion.'
  end
  local hidden = report.text == '' and '**hidden**' or '**shown**, because you requested it'
  return ('P(kept) %.3f against a threshold of %.3f (%s): %s.'):format(
    estimate.p,
    estimate.threshold,
    estimate.suggest,
    estimate.shown and '**shown**' or hidden
  )
end

local PARTS = { left = 'text before the cursor', right = 'text after the cursor', context = 'code of other files' }

--- The parts that were cut to fit into the prompt, and why, in words.
local function trimmed(report)
  local names = vim.tbl_map(function(part)
    return PARTS[part] or part
  end, report.trimmed or {})
  if #names == 0 then
    return 'Everything fitted into the prompt.'
  end
  local why = report.short_prompt and 'The prompt is short, because the model had not read the whole one yet. It lacks'
    or 'Not everything fitted into the prompt'
  return ('%s: %s.'):format(why, table.concat(names, ', '))
end

local function table_of(values, unit)
  local names = vim.tbl_keys(values)
  table.sort(names)
  return vim.tbl_map(function(name)
    return ('- %s: %s%s'):format(name:gsub('_', ' '), tostring(values[name]), unit)
  end, names)
end

---@return string[] lines, table<integer, table> links Chunks by line number
function M.document(report)
  local lines, links = {}, {}
  local function add(...)
    vim.list_extend(lines, { ... })
  end
  add('# Why this completion', '')
  add(
    ('%s:%d, by %s'):format(
      vim.fn.fnamemodify(vim.uri_to_fname(report.uri), ':.'),
      report.position.line + 1,
      report.model ~= '' and ('`%s`'):format(report.model) or 'no model'
    ),
    '',
    verdict(report.decision),
    ''
  )
  if report.text == '' then
    add(('Nothing was suggested: %s.'):format(report.reason or ''), '')
  else
    add('```')
    vim.list_extend(lines, vim.split(report.text, '\n', { plain = true }))
    add('```', '')
  end
  add('## Code from other files in the prompt', '')
  if #report.chunks == 0 then
    add('None.')
  end
  for _, chunk in ipairs(report.chunks) do
    add(('- %.3f  %s:%d-%d'):format(chunk.score, chunk.path, chunk.start_line, chunk.end_line))
    links[#lines] = chunk
  end
  if #report.chunks > 0 then
    add('', '<Enter> opens the code under the cursor.')
  end
  add('', kept(report), '', trimmed(report))
  add('', '## Time', '')
  vim.list_extend(lines, table_of(report.timings_ms or {}, ' ms'))
  add('', '## Tokens', '', 'Tokens that were not evaluated were in the cache.', '')
  vim.list_extend(lines, table_of(report.stats or {}, ''))
  return lines, links
end

local function open(chunk)
  vim.cmd.wincmd('p')
  vim.cmd("normal! m'")
  vim.cmd.edit(vim.fn.fnameescape(vim.uri_to_fname(chunk.uri)))
  api.nvim_win_set_cursor(0, { math.min(chunk.range.start.line + 1, api.nvim_buf_line_count(0)), 0 })
  vim.cmd('normal! zz')
end

local function show(report)
  local lines, links = M.document(report)
  local name = 'repoformer://why'
  if vim.fn.bufexists(name) == 1 then
    api.nvim_buf_delete(vim.fn.bufnr(name), { force = true })
  end
  local buf = api.nvim_create_buf(false, true)
  api.nvim_buf_set_name(buf, name)
  api.nvim_buf_set_lines(buf, 0, -1, false, lines)
  vim.bo[buf].syntax = 'markdown' -- not `filetype`, whose parser may not be installed
  vim.bo[buf].bufhidden = 'wipe'
  vim.bo[buf].modifiable = false
  vim.cmd('botright ' .. math.min(#lines + 1, math.floor(vim.o.lines * 0.6)) .. 'split')
  api.nvim_win_set_buf(0, buf)
  vim.wo.number, vim.wo.signcolumn, vim.wo.winfixheight, vim.wo.conceallevel = false, 'no', true, 2
  local first = vim.tbl_keys(links)
  table.sort(first)
  if first[1] then
    api.nvim_win_set_cursor(0, { first[1], 0 })
  end
  local function on(key, call, what)
    vim.keymap.set('n', key, call, { buffer = buf, nowait = true, desc = what })
  end
  on('<CR>', function()
    local chunk = links[api.nvim_win_get_cursor(0)[1]]
    if chunk then
      open(chunk)
    end
  end, 'Open the code under the cursor')
  vim.keymap.set('n', 'gf', '<CR>', { buffer = buf, remap = true, desc = 'Open the code under the cursor' })
  on('q', '<Cmd>close<CR>', 'Close')
end

function M.open()
  local buf = api.nvim_get_current_buf()
  local client = vim.lsp.get_clients({ bufnr = buf, name = 'repoformer' })[1]
  if not client then
    vim.notify('repoformer: no server runs for this buffer', vim.log.levels.WARN)
    return
  end
  client:request('repoformer/why', { textDocument = { uri = vim.uri_from_bufnr(buf) } }, function(err, report)
    if err then
      vim.notify('repoformer: ' .. err.message, vim.log.levels.ERROR)
    elseif not report or report == vim.NIL then
      vim.notify('repoformer: nothing was completed in this buffer yet')
    else
      show(report)
    end
  end, buf)
end

return M
