-- One request, the same again and again, and the numbers of the run as one line of JSON.
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
for line in io.lines(os.getenv("BENCH_HEADERS")) do
  local name, value = line:match("^([^:]+): (.*)$")
  wrk.headers[name] = value
end

-- With BENCH_PATHS, a file of addresses, each request goes to the next of them.
local paths = os.getenv("BENCH_PATHS")
if paths then
  local requests, number = {}, 0
  function init(args)
    for path in io.lines(paths) do
      requests[#requests + 1] = wrk.format(nil, path)
    end
  end
  function request()
    number = number % #requests + 1
    return requests[number]
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,"max_ms":%.4f,' ..
    '"refused":%d,"broken":%d,"late":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3,
    e.status, e.connect + e.read + e.write, e.timeout))
end
