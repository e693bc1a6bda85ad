"""TRL's SFTTrainer over conversations that are tokens already; runs in an environment of its own.

Usage: trl_peer.py FOLDER OUTPUT [checkpointing|none]
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import torch  # offline first
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main() -> None:
    folder, output, checkpointing = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    given = json.loads((folder / "examples.json").read_text())
    rows = [
        {"input_ids": tokens, "completion_mask": [int(i >= begin) for i in range(len(tokens))]}
        for tokens, begin in given["train"]
    ]
    said = {} if checkpointing == "checkpointing" else {"gradient_checkpointing": False}
    config = SFTConfig(
        output_dir=output,
        use_cpu=True,
        num_train_epochs=1,
        per_device_train_batch_size=given["batch"],
        learning_rate=given["learning_rate"],
        completion_only_loss=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=given["seed"],
        **said,
    )
    trainer = SFTTrainer(
        model=str(folder),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(
            r=given["rank"],
            lora_alpha=given["alpha"],
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.train()
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    trainer.model.save_pretrained(output)
    kind = next(p.dtype for n, p in trainer.model.named_parameters() if "lora" not in n)
    sys.stdout.write(json.dumps({**spent, "bf16": config.bf16, "weights": str(kind)}) + "\n")


if __name__ == "__main__":
    main()
