"""Recording of what calls do, step by step: in memory, in a bounded journal, and to OpenTelemetry."""
