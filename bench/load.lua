-- What wrk sends, by the environment, and its figures as one line that load.py reads.
--
--   BENCH_PATHS     paths with spaces between; thread N always asks for the Nth
--   BENCH_PIPELINE  requests sent at once
--   BENCH_BODY      makes it a POST of this JSON
--   BENCH_HEADERS   "Name: value" lines: in the environment, since arguments are everybody's to see

local threads = 0

function setup(thread)
    threads = threads + 1
    thread:set("number", threads)
end

function init(args)
    local paths = {}
    for path in os.getenv("BENCH_PATHS"):gmatch("%S+") do
        paths[#paths + 1] = path
    end
    for name, value in (os.getenv("BENCH_HEADERS") or ""):gmatch("([^:\n]+): ([^\n]+)") do
        wrk.headers[name] = value
    end
    local body = os.getenv("BENCH_BODY")
    if body then
        wrk.headers["Content-Type"] = "application/json"
    end
    local path = paths[(number - 1) % #paths + 1]
    local one = wrk.format(body and "POST" or "GET", path, nil, body)
    text = one:rep(tonumber(os.getenv("BENCH_PIPELINE") or "1"))
end

function request()
    return text
end

function done(summary, latency, requests)
    local errors = summary.errors
    print(string.format("figures %d %d %d %d %d %d", summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.timeout, errors.status,
        latency:percentile(50), latency:percentile(99)))
end
