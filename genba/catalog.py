"""The map of everything that can be exchanged: name -> "module:Class".

Strings only; nothing is imported here. `genba.core.resolve` loads an entry when it is used and
says which extra to install when its library is missing. To add a kind, add one line. A package
of your own adds the same strings through the entry-point groups `genba.tasks`, `genba.engines`,
`genba.lowerings`, `genba.sources`, `genba.targets`, `genba.triggers`, `genba.executors` and
`genba.protocols`.
"""

from typing import Final

TASKS: Final = {
    "language.chat": "genba.tasks.language.chat:LanguageChat",
    "language.classify": "genba.tasks.language.classify:LanguageClassify",
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
    "conversations": "language.chat",
    "classes of texts": "language.classify",
}

# Kinds of data; a task names the one it reads.
MODALITIES: Final = {
    "table": "genba.data.tables:Tables",
    "image": "genba.data.images:Images",
    "text": "genba.data.texts:Texts",
}

# Tasks whose data are texts, so that a file can be recognised as unchanged without their libraries.
READS: Final = {
    "language.chat": "text",
    "language.classify": "text",
}

ENGINES: Final = {
    "onnxruntime": "genba.engines.onnxruntime:OnnxRuntime",
    "openvino": "genba.engines.openvino:OpenVino",
    "openvino-talk": "genba.engines.openvino_talk:OpenVinoTalk",
    "llama-cpp": "genba.engines.llama_cpp:LlamaCpp",
    "upstream": "genba.engines.upstream:Upstream",
    # Wraps another engine and misbehaves on purpose; for drills and tests, never chosen by a line.
    "faulty": "genba.testing.faults:FaultyEngine",
    # A language model of a few rules, for tests, never chosen by a line.
    "speller": "genba.testing.speller:Speller",
}

# Engines that misbehave or say what they are told; a line never chooses one of them.
DRILLS: Final = frozenset({"faulty", "speller"})

# What trains a language model.
TUNERS: Final = {
    "torch": "genba.tasks.language.chat.tuner:TorchTuner",
}

# Other forms of a graph, for the engines that gain by them.
LOWERINGS: Final = {
    "int8": "genba.engines.int8:Int8",
}

# How an engine turns text into the numbers that a graph takes.
READERS: Final = {
    "wordpiece": "genba.edge.wordpieces:WordPieces",
}

# How the text of a document is read from its file.
DOCUMENTS: Final = {
    "html": "genba.data.documents.html:read",
    "markdown": "genba.data.documents.markdown:read",
    "pdf": "genba.data.documents.pdf:read",
    "text": "genba.data.documents.text:read",
}

# What stands around a language model, opened from the files of its package.
PARTS: Final = {
    "encoder": "genba.edge.encoder:Encoder",
    "library": "genba.edge.passages:Passages",
    "rails": "genba.edge.rails:Rails",
    "student": "genba.edge.student:Student",
}

# What tells the language of a text.
DETECTORS: Final = {
    "fasttext": "genba.data.texts.language:FastText",
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
    "tuner": TUNERS,
    "reader": READERS,
    "part": PARTS,
    "document": DOCUMENTS,
    "detector": DETECTORS,
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
    "openvino-talk": "openvino",
    "llama-cpp": "xllamacpp",
    "upstream": "tokenizers",
}

# Which extra brings a library that is not part of the core installation.
EXTRAS: Final = {
    "fasttext": "language",
    "google": "grpc",  # protobuf
    "grpc": "grpc",
    "openvino": "openvino",
    "psycopg": "postgres",
    "opentelemetry": "otel",
    "ray": "ray",
    "jinja2": "language",
    "llguidance": "language",
    "rensa": "language",
    "tokenizers": "language",
    "torch": "train",
    "pypdf": "language",
    "selectolax": "language",
    "tantivy": "language",
    "xllamacpp": "language",
}
