"""The web page. Its pure part knows nothing of gradio; `page`, `events` and `serve` are the rest."""
