# An answer, and one in pieces. Where the server has keys: -H 'Authorization: Bearer KEY'.
curl -sS --fail-with-body http://127.0.0.1:8000/v1/chat/completions \
  -H 'content-type: application/json' \
  -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 24}'
echo
curl -sSN --fail-with-body http://127.0.0.1:8000/v1/completions \
  -H 'content-type: application/json' \
  -d '{"prompt": "Lionel Messi is a", "max_tokens": 8, "stream": true}'
