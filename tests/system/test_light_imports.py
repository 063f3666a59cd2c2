"""Light imports: in processes of their own, because one process imports a library once."""

import os
import subprocess
import sys
from pathlib import Path

from unclip.system import light_imports

HEAVY = (
    *("torchvision", "transformers", "timm", "peft", "accelerate", "huggingface_hub.utils", "torch._dynamo", "sympy"),
    *("scipy", "pandas", "boto3", "diffusers.pipelines", "diffusers.hooks.hooks", "diffusers.loaders"),
    *("diffusers.quantizers", "open_clip.factory", "open_clip.model", "torch._inductor", "tensorboard"),
)
GENERATE = """
import sys
from unclip.cli.main import main
sys.argv = ["unclip", {command}]
assert main() == 0
print("heavy:", *sorted(set({heavy}) & sys.modules.keys()))
"""


def run(code: str, folder: Path) -> list[str]:
    """The lines that Python code prints, run in a folder."""
    root = str(Path(light_imports.__file__).parents[2])
    variables = {**os.environ, "PYTHONPATH": root}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=variables)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def test_the_command_imports_nothing_heavy_and_makes_the_same_image(tmp_path, tiny_model, tiny) -> None:
    model = [f"--model={tiny_model}", "--device=cpu", "--dtype=float32"]
    options = ["--seed=7", "--steps=3", "--upsampler-steps=2", "-o", "light.png", "--quiet"]
    command = ", ".join(map(repr, ["generate", "a red cat", *model, *options]))
    assert run(GENERATE.format(command=command, heavy=HEAVY), tmp_path)[-1] == "heavy:"
    [plain] = tiny.generate("a red cat", seed=7, steps=3, upsampler_steps=2)
    assert (tmp_path / "light.png").read_bytes() == plain.to_bytes()


def test_the_rest_of_a_library_is_there_when_it_is_asked_for(tmp_path) -> None:
    lines = run(
        """
import sys
from unclip.system.light_imports import allow_light_imports, import_networks
allow_light_imports()
import_networks()
import diffusers.models.unets.unet_2d, open_clip
print(open_clip.get_model_config("ViT-L-14")["embed_dim"], "torchvision" in sys.modules)
from diffusers import UnCLIPPipeline, UNet2DModel
from diffusers.utils import is_accelerate_available
print(UnCLIPPipeline.__name__, UNet2DModel.__name__, is_accelerate_available())
import diffusers, open_clip
print(type(diffusers).__module__ == "unclip.system.light_imports", callable(open_clip.create_model))
""",
        tmp_path,
    )
    assert lines == ["768 True", "UnCLIPPipeline UNet2DModel True", "False True"]


def test_another_version_of_a_library_is_imported_in_the_plain_way(tmp_path) -> None:
    lines = run(
        """
import sys
from unclip.system import light_imports
light_imports.MODULES = {"diffusers": ("diffusers.models.unets.no_such_module",), "open_clip": ("open_clip.nothing",)}
light_imports.allow_light_imports()
light_imports.import_networks()
print([name for name in sys.modules if name.partition(".")[0] in ("diffusers", "open_clip", "torchvision")])
from unclip.models.clip import Clip
print("open_clip.factory" in sys.modules, "torchvision" in sys.modules)
""",
        tmp_path,
    )
    assert lines == ["[]", "True True"]


def test_a_program_that_uses_unclip_has_the_whole_libraries(tmp_path, tiny_model) -> None:
    """Also if it imports them after unclip, and after the command line has run in it."""
    lines = run(
        f"""
from unclip.cli.main import main
options = ["--model", {str(tiny_model)!r}, "--device", "cpu", "--steps", "1", "--upsampler-steps", "1", "--quiet"]
assert main(["generate", "a red cat", *options, "--seed", "1", "-o", "cat.png"]) == 0
from unclip import Unclip
pipe = Unclip.from_pretrained({str(tiny_model)!r}, device="cpu")
import diffusers, open_clip, sys
print(type(pipe.model.decoder.network.unet) is diffusers.UNet2DConditionModel)
print(isinstance(pipe.model.clip.text, open_clip.transformer.TextTransformer), callable(open_clip.create_model))
print(any(type(module).__module__ == "unclip.system.light_imports" for module in sys.modules.values()))
""",
        tmp_path,
    )
    assert lines[1:] == ["True", "True True", "False"]


def test_an_interrupt_leaves_no_half_of_a_library(tmp_path) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    lines = run(
        """
import sys
from unclip.system import light_imports
light_imports.MODULES = {"diffusers": ("diffusers.schedulers.scheduling_ddpm", "interrupted")}
light_imports.allow_light_imports()
try:
    light_imports.import_networks()
except KeyboardInterrupt:
    print([name for name in sys.modules if name.partition(".")[0] in ("diffusers", "huggingface_hub", "accelerate")])
from diffusers import DDPMScheduler
print(DDPMScheduler.__name__)
""",
        tmp_path,
    )
    assert lines == ["[]", "DDPMScheduler"]


def test_other_threads_never_find_a_stand_in(tmp_path) -> None:
    lines = run(
        """
import sys, threading
from unclip.system.light_imports import allow_light_imports, import_networks
done = threading.Event()
other = threading.Thread(target=done.wait)
other.start()
allow_light_imports()
import_networks()
print("diffusers" in sys.modules, "open_clip" in sys.modules)
done.set()
other.join()
""",
        tmp_path,
    )
    assert lines == ["False False"]
