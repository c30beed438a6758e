"""What the web page and the HTTP API share. Nothing here depends on gradio or FastAPI."""
