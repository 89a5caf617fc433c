-- A user of docs/editors/sandbox.lua: runs its commands, prints one JSON line for each step.
--
-- nvim --headless -u NONE -c 'luafile docs/editors/sandbox.lua' -c 'luafile plugin.lua' -c cquit
local LIMIT_MS = 120000
local said = {}
vim.notify = function(text)
  table.insert(said, text)
end

local function say(step, fields)
  io.stdout:write(vim.fn.json_encode(vim.tbl_extend("error", { step = step }, fields or {})) .. "\n")
  io.stdout:flush()
end

local function wait(question, what)
  assert(vim.wait(LIMIT_MS, question, 20), what .. " did not come: " .. vim.inspect(said))
end

local function told(pattern)
  return function()
    return #said > 0 and said[#said]:find(pattern)
  end
end

vim.cmd("SandboxStatus")
wait(told("is stopped"), "the first status")
say("before", { line = SandboxStatusline() })

vim.cmd("SandboxStart offline")
wait(told("is running"), "the start")
wait(function()
  return SandboxStatusline() == "vm:running"
end, "the status line")
vim.cmd("SandboxStatus")
wait(told("network offline"), "the network")
say("started", { line = SandboxStatusline() })

vim.cmd("SandboxTerminal")
local buffer
wait(function()
  buffer = vim.api.nvim_get_current_buf()
  return vim.bo[buffer].buftype == "terminal"
end, "the terminal")
local function screen()
  return table.concat(vim.api.nvim_buf_get_lines(buffer, 0, -1, false), "\n")
end
wait(function()
  return screen():find("workspace%$")
end, "the prompt")
vim.fn.chansend(vim.b[buffer].terminal_job_id, "echo in-$((20 + 3))-$(hostname)\n")
wait(function()
  return screen():find("in%-23%-sandbox")
end, "the answer")
say("terminal", { shown = screen():match("in%-23%-[%w-]+") })
vim.fn.jobstop(vim.b[buffer].terminal_job_id)

vim.cmd("SandboxStop")
wait(told("is stopped"), "the stop")
wait(function()
  return SandboxStatusline() == ""
end, "the empty status line")
say("stopped")
vim.cmd("qall!")
