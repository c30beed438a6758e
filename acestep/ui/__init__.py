"""The web page. Its pure part does not depend on gradio; `page`, `events` and `serve` do."""
