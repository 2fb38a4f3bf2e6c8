#!/usr/bin/env bash
# Requests per second and latency of the gateway beside LiteLLM Proxy, Portkey and a bare proxy (bench/bare_proxy.py),
# one worker each, in turns; once with small requests and once with those of an agent, of 110 KB:
#     bench/peers.sh            # needs nginx, wrk, redis-server, npm; installs both peers into $PEERS_DIR, /tmp/peers by default
#     bench/peers.sh bare ours  # only these; of litellm, portkey, nginx, bare, ours
# Everything runs on this machine and shares its cores: compare the ratios of one run only.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$project/.venv/bin/python}
work=${PEERS_DIR:-${TMPDIR:-/tmp}/peers}
seconds=${SECONDS_EACH:-5} rounds=${ROUNDS:-7}
names=("$@")
(($#)) || names=(litellm portkey nginx bare ours)
has() { [[ " ${names[*]} " == *" $1 "* ]]; }
mkdir -p "$work"/{nginx,redis} && cd "$work"
pids=()
finish() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; [[ -f $work/nginx/pid ]] && kill "$(cat "$work/nginx/pid")" 2>/dev/null || true; }
trap finish EXIT

for tool in nginx wrk redis-server $(has portkey && echo npm); do command -v $tool >/dev/null || { echo "$tool is missing: install it" >&2; exit 1; }; done
! has litellm || [[ -x litellm/bin/litellm ]] || { python3 -m venv litellm; litellm/bin/pip -q install 'litellm[proxy]' hiredis uvloop; }
! has portkey || [[ -d node_modules/@portkey-ai/gateway ]] || { npm init -y >/dev/null; npm install --silent @portkey-ai/gateway; }

cat > nginx/conf <<N
worker_processes 1; pid $work/nginx/pid; error_log $work/nginx/error.log; daemon on;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000;
  client_body_temp_path $work/nginx/b; proxy_temp_path $work/nginx/p; fastcgi_temp_path $work/nginx/f; uwsgi_temp_path $work/nginx/u; scgi_temp_path $work/nginx/s;
  server { listen 127.0.0.1:19101; listen 127.0.0.1:19102;
    location / { default_type application/json; return 200 '{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"Hello from \$server_port"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}'; } } }
N
nginx -c "$work/nginx/conf"
redis-server --port 16390 --bind 127.0.0.1 --save "" --appendonly no --dir "$work/redis" --logfile log & pids+=($!)

cat > litellm.yaml <<'N'
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_base: "http://127.0.0.1:19101/v1", api_key: sk-x}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_base: "http://127.0.0.1:19102/v1", api_key: sk-y}
router_settings: {optional_pre_call_checks: ["session_affinity"], redis_host: 127.0.0.1, redis_port: 16390}
litellm_settings: {num_retries: 0, set_verbose: false}
general_settings: {dangerously_permit_weak_or_unset_master_key: true}
N
has litellm && HF_HUB_OFFLINE=1 LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_LOG=ERROR litellm/bin/litellm --config litellm.yaml --host 127.0.0.1 --port 14000 --num_workers 1 >litellm.log 2>&1 & pids+=($!)
has portkey && node node_modules/@portkey-ai/gateway/build/start-server.js --port=18787 --headless >portkey.log 2>&1 & pids+=($!)

cat > providers.toml <<'N'
[[provider]]
name = "one"
base_url = "http://127.0.0.1:19101/v1"
api_key_env = "KEY_ONE"
models = ["gpt-4o"]
[[provider]]
name = "two"
base_url = "http://127.0.0.1:19102/v1"
api_key_env = "KEY_TWO"
models = ["gpt-4o"]
N
export KEY_ONE=x KEY_TWO=y SENTINEL_PROVIDERS=$work/providers.toml REDIS_URL=redis://127.0.0.1:16390/1 DATABASE_URL=sqlite:///$work/db.sqlite3 SECRET_KEY=comparison-only ALLOWED_HOSTS=127.0.0.1 SENTINEL_DATA_DIR=$work/ours
(cd "$project" && "$python" manage.py migrate -v0)
KEY=$(cd "$project" && "$python" manage.py createkey comparison | tail -n 1 | awk '{print $NF}'); export KEY
(cd "$project" && exec "$python" -m uvicorn sentinel_project.asgi:application --port 18001 --log-level warning --no-access-log \
  --http sentinel_project.http_protocol:LimitedProtocol) >ours.log 2>&1 & pids+=($!)  # as `manage.py run` serves
(cd "$project" && UPSTREAM=http://127.0.0.1:19101/v1 exec "$python" -m uvicorn bench.bare_proxy:application --port 18002 --log-level warning --no-access-log) >bare.log 2>&1 & pids+=($!)

wait_for() { for _ in $(seq 90); do curl -s -o /dev/null "$1" && return; sleep 1; done; echo "no answer from $1" >&2; return 1; }
if has litellm; then wait_for http://127.0.0.1:14000/health/liveliness; fi
if has portkey; then wait_for http://127.0.0.1:18787/; fi
wait_for http://127.0.0.1:18001/healthz; wait_for http://127.0.0.1:18002/healthz

cat > load.lua <<'N'
-- 1,000 conversations in turn; the session id goes in every form that a peer reads
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("KEY") or "sk-1234")
wrk.headers["x-portkey-provider"] = "openai"
wrk.headers["x-portkey-custom-host"] = "http://127.0.0.1:19101/v1"
local turn = '{"role":"user","content":"' .. string.rep("What a tool answered. ", 120) .. '"},'
local history = string.rep(turn, os.getenv("BODY") == "agent" and 41 or 0)
local n = 0
request = function()
  n = n + 1
  local id = "conversation-" .. (n % 1000)
  wrk.headers["x-litellm-session-id"] = id
  return wrk.format(nil, "/v1/chat/completions", nil,
    '{"model":"gpt-4o","messages":[' .. history .. '{"role":"user","content":"hello, how are you?"}],"conversation_id":"' .. id .. '"}')
end
N
load() { BODY=$3 wrk -t1 -c16 -d"${2}"s --latency -s load.lua "http://127.0.0.1:$1" | awk '/50%/{p50=$2} /99%/{p99=$2} /Requests\/sec/{r=$2} /Non-2xx/{bad=$NF} END{print r, p50, p99, bad+0}'; }
if has litellm; then echo "LiteLLM $(litellm/bin/pip show litellm | awk '/^Version/{print $2}')"; fi
if has portkey; then echo "Portkey $(node -p "require('./node_modules/@portkey-ai/gateway/package.json').version")"; fi
declare -A port=([litellm]=14000 [portkey]=18787 [nginx]=19101 [bare]=18002 [ours]=18001)
for body in small agent; do
  for name in "${names[@]}"; do load "${port[$name]}" 2 $body >/dev/null; done
  : > rows
  for _ in $(seq "$rounds"); do for name in "${names[@]}"; do echo "$name $(load "${port[$name]}" "$seconds" $body)" >>rows; done; done
  BODY=$body python3 - <<'N'
import collections, os, statistics
rows = collections.defaultdict(list)
for line in open("rows"):
    name, rps, p50, p99, bad = line.split()
    rows[name].append((float(rps), p50, p99, int(bad)))
print(f"{os.environ['BODY'] + ' bodies':12} {'req/s median':>12} {'p50':>9} {'p99':>9} {'not 2xx':>8} {'ours / it':>10}")
for name, r in sorted(rows.items()):
    ratio = statistics.median(own[0] / its[0] for own, its in zip(rows["ours"], r)) if "ours" in rows else float("nan")
    mid = sorted(r)[len(r) // 2]
    print(f"{name:12} {mid[0]:12.0f} {mid[1]:>9} {mid[2]:>9} {sum(x[3] for x in r):8d} {ratio:10.3f}")
N
done
