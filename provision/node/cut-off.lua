-- Ends the sessions of an API server that is down, some time after it was marked down, and only while
-- another one is up. HAProxy's own `on-marked-down shutdown-sessions` does so at once, and thereby dooms
-- connections that are just being opened to that server: left alone for `timeout connect` they are sent to
-- another server and nobody notices. And where every server is down, in an election of etcd's leader say,
-- a session that is cut has nowhere to go, while one that is kept goes on when the election is over.
--
-- A server that accepts connections and says nothing may be frozen, or only slow, on a busy host. Its sessions
-- get longer: those of a slow one go on. One that is drained is not down, and completes what was asked of it.

local BACKEND = "apiserverbackend"
local INTERVAL = 250 -- ms between two looks
local PATIENCE = 500 -- ms that a server must have been down; more than `timeout connect` in haproxy.cfg
local PATIENCE_WITH_SILENT = 2000 -- ms

local down = {} -- server name → ms for which it has been seen down

-- What the last check found: "L6TOUT", "L7TOUT" (TLS, or the request, was not answered), with "* " in front
-- while the next one is under way; management guide 9.1, "check_status".
local function patience_with(stats)
	return stats.check_status:find("L[67]TOUT") and PATIENCE_WITH_SILENT or PATIENCE
end

local function look(servers)
	local others_are_up = false
	for name, server in pairs(servers) do
		-- "UP", "UP 1/2" (about to fall), "DRAIN" (it is up), "DOWN", "DOWN 1/2" (about to rise); the same, "status".
		local status = server:get_stats().status
		if status:find("^DOWN") then
			down[name] = (down[name] or -INTERVAL) + INTERVAL
		else
			down[name] = nil
		end
		others_are_up = others_are_up or status:find("^UP") ~= nil
	end
	return others_are_up
end

core.register_task(function()
	while true do
		core.msleep(INTERVAL)
		local servers = core.backends[BACKEND].servers
		if look(servers) then
			for name, since in pairs(down) do
				local stats = servers[name]:get_stats()
				if since >= patience_with(stats) and tonumber(stats.scur) > 0 then
					core.log(core.notice, name .. " is down: its sessions end")
					servers[name]:shut_sess()
				end
			end
		end
	end
end)
