"""Stands in for the Python of axolotl's environment: called as `python -P checked_train.py CONFIG PROGRESS [CHECKPOINT]`.

FAKE_AXOLOTL says how it behaves. It trains nothing; it writes what axolotl would: records, checkpoints, an adapter.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

behaviour = os.environ["FAKE_AXOLOTL"]
config, progress, *checkpoint = map(Path, sys.argv[3:])
output = config.parent / "output"
rows = [json.loads(line) for line in (config.parent / "axolotl/train.jsonl").read_text().splitlines()]


def record(event: str, step: int, **values: float) -> None:
    with open(progress, "a", encoding="utf-8") as file:
        file.write(
            json.dumps({**values, "event": event, "step": step, "epoch": step / 2, "time_s": 100.0 + step}) + "\n"
        )


def save(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    (folder / "adapter_config.json").write_text(json.dumps({"target_modules": ["v_proj", "q_proj"], "r": 4}))


start = int(checkpoint[0].name.rsplit("-", 1)[-1]) if checkpoint else 0
(config.parent / "started").write_text(f"{os.getpid()} {start} {os.environ.get('PYTHONPATH')} {sys.argv[1]}")
print("reading the config", flush=True)
if behaviour == "hang":
    time.sleep(60)
if behaviour == "refuse":
    print("ConfigError: axolotl has no setting lora_rr", file=sys.stderr)
    sys.exit(64)
record("begin", start)
for step in range(start + 1, 5):
    loss = float("nan") if behaviour == "nan" and step == 3 else 4.0 / step
    num_trained = sum(label != -100 for row in rows for label in row["labels"]) * step // 2 - (behaviour == "drops")
    record("log", step, loss=loss, grad_norm=0.5, learning_rate=0.1 / step, **{"tokens/trainable": num_trained})
    if behaviour == "nan" and step == 3:
        time.sleep(60)
    if step % 2 == 0:
        record("log", step, eval_loss=5.0 / step)
        save(output / f"checkpoint-{step}")
        (output / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        record("saved", step)
    if step == 3 and behaviour == "fail":
        print(
            'Traceback (most recent call last):\n  File "x.py", line 1\ntorch.OutOfMemoryError: 7 GB are too few\nbye'
        )
        sys.exit(1)
    if step == 3 and behaviour == "killed":
        save(output / "checkpoint-4")  # half of a checkpoint: its trainer_state.json is not there yet
        with open(progress, "a", encoding="utf-8") as file:
            file.write('{"event": "log", "st')
        os.kill(os.getpid(), signal.SIGKILL)
if behaviour != "no_adapter":
    save(output)
record("end", 4, best_step=4)
