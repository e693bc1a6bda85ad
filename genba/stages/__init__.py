"""The stages of a line: one public function each, from raw data to production and back."""
