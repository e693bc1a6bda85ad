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
    "int8-percentile": "genba.engines.int8:Int8Percentile",
    "int8-tensor": "genba.engines.int8:Int8Tensor",
    "int8-s8s8": "genba.engines.int8:Int8Signed",
    "int8-thin": "genba.engines.int8:Int8Thin",
    "int8-dynamic": "genba.engines.int8:Int8Dynamic",
}

# How an engine turns text into the numbers that a graph takes.
READERS: Final = {
    "wordpiece": "genba.edge.wordpieces:WordPieces",
}

# How a file becomes pixels, on a device that may have no library for images.
DECODERS: Final = {
    "image": "genba.edge.images:decode",
    "image-facts": "genba.edge.images:inspect",  # what the header says, before a pixel is decoded
}

# Where a device's readings come from and its answers go.
LINKS: Final = {
    "files": "genba.edge.links.files:FilesLink",
    "modbus": "genba.edge.links.modbus:ModbusLink",
    "mqtt": "genba.edge.links.mqtt:MqttLink",
    "opcua": "genba.edge.links.opcua:OpcUaLink",
}

# Machines for drills and tests, over the same protocols.
SIMULATORS: Final = {
    "modbus": "genba.testing.plc_modbus:ModbusPlc",
    "opcua": "genba.testing.plc_opcua:OpcUaPlc",
}

# How a device learns what is new, and how a factory says so; both need a library.
UPDATES: Final = {
    "client": "genba.edge.agent.freshness:Freshness",
    "repository": "genba.serve.edge.repository:Repository",
    "keys": "genba.serve.edge.signing_keys:offline_keys",
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

# Commands of `genba-edge`, on a device; each is imported when it is used.
EDGE_COMMANDS: Final = {
    "verify": "genba.edge.cli.verify:Verify",
    "self-test": "genba.edge.cli.selftest:SelfTest",
    "predict": "genba.edge.cli.predict:Predict",
    "trust": "genba.edge.cli.trust:TrustKey",
    "revoke": "genba.edge.cli.trust:RevokeKey",
    "agent": "genba.edge.cli.agent:RunAgent",
    "status": "genba.edge.cli.status:Status",
    "update": "genba.edge.cli.update:Update",
    "confirm": "genba.edge.cli.update:Confirm",
    "serve": "genba.edge.cli.serve:Serve",
}

KINDS: Final = {
    "edge-command": EDGE_COMMANDS,
    "task": TASKS,
    "modality": MODALITIES,
    "engine": ENGINES,
    "lowering": LOWERINGS,
    "tuner": TUNERS,
    "reader": READERS,
    "decoder": DECODERS,
    "update": UPDATES,
    "link": LINKS,
    "simulator": SIMULATORS,
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
    "asyncua": "opcua",
    "paho": "mqtt",
    "pymodbus": "modbus",
    "securesystemslib": "update",
    "tuf": "update",
    "pypdf": "language",
    "selectolax": "language",
    "tantivy": "language",
    "xllamacpp": "language",
}

# What the runtime of a device needs, as its wheel says; the same versions as in pyproject.toml.
EDGE_LIBRARIES: Final = ("cryptography>=44", "numpy>=2.1")
EDGE_EXTRAS: Final = {
    "onnxruntime": ("onnxruntime>=1.22",),
    "openvino": ("onnx>=1.19", "openvino>=2026.1"),
    "vision": ("pillow>=12",),
    "mqtt": ("paho-mqtt>=2.1",),
    "opcua": ("asyncua>=2.1",),
    "modbus": ("pymodbus>=3.16",),
    "update": ("tuf>=7.0",),
}
# Which extra of the runtime brings a module.
EDGE_IMPORTS: Final = {
    "PIL": "vision",
    "asyncua": "opcua",
    "onnx": "openvino",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "paho": "mqtt",
    "pymodbus": "modbus",
    "tuf": "update",
}
