"""The map of everything that can be exchanged: name -> "module:Class".

Strings only; nothing is imported here. `genba.core.resolve` loads an entry when it is used and
says which extra to install when its library is missing. To add a kind, add one line. A package
of your own adds the same strings through the entry-point groups `genba.tasks`, `genba.engines`,
`genba.lowerings`, `genba.sources`, `genba.targets`, `genba.triggers`, `genba.executors` and
`genba.protocols`.
"""

from typing import Final

TASKS: Final = {
    "sensor.anomaly": "genba.tasks.sensor.anomaly:SensorAnomaly",
    "sensor.forecast": "genba.tasks.sensor.forecast:SensorForecast",
    "sensor.remaining_life": "genba.tasks.sensor.remaining_life:SensorRemainingLife",
    "vision.anomaly": "genba.tasks.vision.anomaly:VisionAnomaly",
    "vision.classify": "genba.tasks.vision.classify:VisionClassify",
}

# What `genba new` makes of data when nobody says more.
GUESSED_TASKS: Final = {
    "table": "sensor.anomaly",
    "run to failure": "sensor.remaining_life",
    "good parts": "vision.anomaly",
    "images": "vision.classify",
}

# Kinds of data; a task names the one it reads.
MODALITIES: Final = {
    "table": "genba.data.tables:Tables",
    "image": "genba.data.images:Images",
}

ENGINES: Final = {
    "onnxruntime": "genba.engines.onnxruntime:OnnxRuntime",
    "openvino": "genba.engines.openvino:OpenVino",
    # Wraps another engine and misbehaves on purpose; for drills and tests, never chosen by a line.
    "faulty": "genba.testing.faults:FaultyEngine",
}

# Other forms of a graph, for the engines that gain by them.
LOWERINGS: Final = {
    "int8": "genba.engines.int8:Int8",
}

SOURCES: Final = {
    "files": "genba.data.sources.files:FileSource",
    "package": "genba.data.sources.package:PackageSource",
    "generated": "genba.data.sources.generated:GeneratedSource",
}

TARGETS: Final = {
    "this-machine": "genba.targets.local:ThisMachine",
}

TRIGGERS: Final = {
    "drift": "genba.loop.triggers.drift:DriftTrigger",
    "labels": "genba.loop.triggers.labels:LabelTrigger",
    "days": "genba.loop.triggers.schedule:ScheduleTrigger",
    "quality": "genba.loop.triggers.quality:QualityTrigger",
    "cost_usd": "genba.loop.triggers.cost:CostTrigger",
}

EXECUTORS: Final = {
    "inline": "genba.runs.executor:InlineExecutor",
    "process": "genba.runs.executor:ProcessExecutor",
}

# Besides HTTP, which is always there; each listens on a port of its own.
PROTOCOLS: Final = {
    "grpc": "genba.serve.grpc.server:start",
}

# Takes the spans of requests, where somebody collects them.
TELEMETRY: Final = {
    "otlp": "genba.serve.watch.otel:Otlp",
}

# Where `genba up` can answer besides this machine.
CLUSTERS: Final = {
    "ray": "genba.serve.ray.cluster:RayFleet",
}

KINDS: Final = {
    "task": TASKS,
    "modality": MODALITIES,
    "engine": ENGINES,
    "lowering": LOWERINGS,
    "source": SOURCES,
    "target": TARGETS,
    "trigger": TRIGGERS,
    "executor": EXECUTORS,
    "telemetry": TELEMETRY,
    "protocol": PROTOCOLS,
    "cluster": CLUSTERS,
}

# The library behind an engine, so that its version can be known without loading it.
LIBRARIES: Final = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}

# Which extra brings a library that is not part of the core installation.
EXTRAS: Final = {
    "google": "grpc",  # protobuf
    "grpc": "grpc",
    "openvino": "openvino",
    "psycopg": "postgres",
    "opentelemetry": "otel",
    "ray": "ray",
}
