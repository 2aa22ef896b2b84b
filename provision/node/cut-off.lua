-- Ends the sessions of an API server that is down, some time after it was marked down, and only while
-- another one is up. HAProxy's own `on-marked-down shutdown-sessions` does so at once, and thereby dooms
-- connections that are just being opened to that server: left alone for `timeout connect` they are sent to
-- another server and nobody notices. And where every server is down, in an election of etcd's leader say,
-- a session that is cut has nowhere to go, while one that is kept goes on when the election is over.
--
-- A server that accepts connections and says nothing may be frozen, or only slow, on a busy host. Its sessions
-- get longer: those of a slow one go on. A server that is drained completes what was asked of it, and its
-- watches, which have no end, then go on elsewhere.

local BACKEND = "apiserverbackend"
local INTERVAL = 250 -- ms between two looks
local PATIENCE = 500 -- ms that a server must have been out; more than `timeout connect` in haproxy.cfg
local PATIENCE_WITH_SILENT = 2000
local PATIENCE_WITH_DRAINED = 4000

local out = {} -- server name → ms for which it has been seen down, or drained

-- "UP", "UP 1/2" (about to fall), "DRAIN", "DOWN", "DOWN 1/2" (about to rise), "MAINT" (by hand). What the last
-- check found: "L6TOUT", "L7TOUT" (TLS, or the request, was not answered), with "* " in front while the next one
-- is under way. Management guide 9.1, "status" and "check_status".
local function patience_with(stats)
	if stats.status:find("^DRAIN") then
		return PATIENCE_WITH_DRAINED
	end
	return stats.check_status:find("L[67]TOUT") and PATIENCE_WITH_SILENT or PATIENCE
end

local function look(servers)
	local others_are_up = false
	for name, server in pairs(servers) do
		if server:get_stats().status:find("^UP") then
			others_are_up = true
			out[name] = nil
		else
			out[name] = (out[name] or -INTERVAL) + INTERVAL
		end
	end
	return others_are_up
end

core.register_task(function()
	while true do
		core.msleep(INTERVAL)
		local servers = core.backends[BACKEND].servers
		if look(servers) then
			for name, since in pairs(out) do
				local stats = servers[name]:get_stats()
				if since >= patience_with(stats) and tonumber(stats.scur) > 0 then
					core.log(core.notice, name .. " is out (" .. stats.status .. "): its sessions end")
					servers[name]:shut_sess()
				end
			end
		end
	end
end)
