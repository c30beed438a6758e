"""The web page. Its pure part does not depend on gradio; `page`, `events` and `serve` do."""

from acestep.ui.stub_files import leave_out_stub_files

leave_out_stub_files()
