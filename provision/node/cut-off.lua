-- Ends the sessions of an API server that is down, some time after it was marked down, and only while
-- another one is up. HAProxy's own `on-marked-down shutdown-sessions` does so at once, and thereby dooms
-- connections that are just being opened to that server: left alone for `timeout connect` they are sent to
-- another server and nobody notices. And where every server is down, in an election of etcd's leader say,
-- a session that is cut has nowhere to go, while one that is kept goes on when the election is over.

local BACKEND = "apiserverbackend"
local INTERVAL = 250 -- ms between two looks
local PATIENCE = 500 -- ms that a server must have been down; more than `timeout connect` in haproxy.cfg

local down = {} -- server name → ms for which it has been seen down

local function look(servers)
	local others_are_up = false
	for name, server in pairs(servers) do
		-- "UP", "UP 1/2" (about to fall), "DOWN", "DOWN 1/2" (about to rise); management guide 9.1, "status".
		if server:get_stats().status:find("^UP") then
			others_are_up = true
			down[name] = nil
		else
			down[name] = (down[name] or -INTERVAL) + INTERVAL
		end
	end
	return others_are_up
end

core.register_task(function()
	while true do
		core.msleep(INTERVAL)
		local servers = core.backends[BACKEND].servers
		if look(servers) then
			for name, since in pairs(down) do
				if since >= PATIENCE and tonumber(servers[name]:get_stats().scur) > 0 then
					core.log(core.notice, name .. " is down: its sessions end")
					servers[name]:shut_sess()
				end
			end
		end
	end
end)
