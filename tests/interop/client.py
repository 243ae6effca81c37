"""Real clients of `af2 serve` for tests/interop.rs: the `openai` package, and a fetch as a browser makes it.

python client.py ADDRESS ORIGIN WAV      prints what they read as JSON, and exits with 0
"""

import base64
import json
import pathlib
import sys
import urllib.request
from http.client import HTTPConnection

import openai

address, origin, wav = sys.argv[1:]
token = "a-token-of-the-test"
data = base64.b64encode(pathlib.Path(wav).read_bytes()).decode()
sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
messages = [{"role": "user", "content": [sound, {"type": "text", "text": "What is the emotion of the speaker?"}]}]
found = {}

client = openai.OpenAI(base_url=f"http://{address}/v1", api_key=token, max_retries=0)
found["models"] = [m.id for m in client.models.list().data]
name = found["models"][0]

whole = client.chat.completions.create(model=name, messages=messages, logprobs=True, temperature=0)
found["whole"] = whole.choices[0].message.content
found["reason"] = whole.choices[0].finish_reason
found["tokens"] = whole.usage.completion_tokens
found["logprobs"] = len(whole.choices[0].logprobs.content)

stream = client.chat.completions.create(
    model=name, messages=messages, stream=True, stream_options={"include_usage": True}
)
pieces, usage = [], None
for event in stream:
    usage = event.usage or usage
    pieces += [c.delta.content for c in event.choices if c.delta.content]
found["pieces"] = pieces
found["usage"] = usage.completion_tokens

beams = client.chat.completions.create(
    model=name, messages=messages, n=2, max_tokens=12, extra_body={"num_beams": 3, "length_penalty": 0.6}
)
found["beams"] = [c.message.content for c in beams.choices]

errors = {}
for what, kind, change in [
    ("token", openai.AuthenticationError, None),
    ("field", openai.BadRequestError, {"extra_body": {"tool": 1}}),
    ("sound", openai.BadRequestError, {"messages": [{"role": "user", "content": "what?"}]}),
    ("model", openai.NotFoundError, {"model": "gpt-4o"}),
]:
    asker = client if change else client.with_options(api_key="another")
    try:
        asker.chat.completions.create(**({"model": name, "messages": messages} | (change or {})))
    except kind as e:
        errors[what] = {"param": e.param, "code": e.code, "status": e.status_code}
found["errors"] = errors

# A hang-up in the middle, and the server goes on.
stream = client.chat.completions.create(model=name, messages=messages, stream=True, extra_body={"min_tokens": 100})
next(iter(stream))
stream.close()

# As a browser: first it asks whether the page may ask, then it reads the stream piece by piece.
host, port = address.rsplit(":", 1)
browser = HTTPConnection(host, int(port))
browser.request(
    "OPTIONS",
    "/v1/chat/completions",
    headers={
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    },
)
preflight = browser.getresponse()
preflight.read()
allowed = {k.lower(): v for k, v in preflight.getheaders()}
assert allowed["access-control-allow-origin"] in (origin, "*"), allowed
assert "POST" in allowed["access-control-allow-methods"], allowed
assert {"authorization", "content-type"} <= {
    h.strip().lower() for h in allowed["access-control-allow-headers"].split(",")
}, allowed
request = urllib.request.Request(
    f"http://{address}/v1/chat/completions",
    data=json.dumps({"messages": messages, "stream": True}).encode(),
    headers={"Origin": origin, "Content-Type": "application/json", "Authorization": f"Bearer {token}"},
)
text = []
with urllib.request.urlopen(request) as answer:
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    for line in answer:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            text.append(json.loads(line[6:])["choices"][0]["delta"].get("content", ""))
found["browser"] = "".join(text)
print(json.dumps(found))
