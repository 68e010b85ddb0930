"""Run as a child: what ComfyUI's own FLUX computes from a single file and LoRA files, without its server.

Arguments: the ComfyUI checkout, the transformer's single file, inputs.safetensors (latents, sigma,
prompt_embeds, pooled), outputs.safetensors, then LoRA files, each with `@` and its strength behind it where
that is not 1. The outputs are `base` and `0`, `1` … for the LoRA files.
"""

import dataclasses
import sys


def main() -> None:
    root, transformer, inputs, outputs, *loras = sys.argv[1:]
    sys.argv[1:] = ["--cpu"]
    sys.path.insert(0, root)
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.ldm.flux.model
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils
    import torch
    from safetensors.torch import load_file, save_file

    cpu = torch.device("cpu")
    config = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": 64,
        "context_in_dim": 64,
        "hidden_size": 64,
        "mlp_ratio": 4.0,
        "num_heads": 2,
        "depth": 2,
        "depth_single_blocks": 2,
        "axes_dim": [4, 14, 14],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": False,
        "dtype": torch.float32,
    }
    if "txt_ids_dims" in {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}:
        config["txt_ids_dims"] = []  # later releases ask for it, 0.3.64 refuses it
    description = comfy.supported_models.FluxSchnell(config)
    description.set_inference_dtype(torch.float32, None)
    model = description.get_model({}, device="cpu")
    # As ComfyUI's loader does: from 0.13 on its model has other names than Black Forest Labs' files.
    weights = description.process_unet_state_dict(load_file(transformer))
    model.diffusion_model.load_state_dict(weights, strict=True)
    given = load_file(inputs)

    def velocity() -> torch.Tensor:
        with torch.no_grad():
            flow = model.diffusion_model(
                given["latents"], given["sigma"], context=given["prompt_embeds"], y=given["pooled"]
            )
        return flow.contiguous()

    results = {"base": velocity()}
    for index, told in enumerate(loras):
        path, _, strength = told.partition("@")
        patcher = comfy.model_patcher.ModelPatcher(model, cpu, cpu)
        names = comfy.lora.model_lora_keys_unet(model, {})
        converted = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(path))
        patcher.add_patches(comfy.lora.load_lora(converted, names), float(strength or 1))
        patcher.patch_model()
        results[str(index)] = velocity()
        patcher.unpatch_model()
    save_file(results, outputs)


if __name__ == "__main__":
    main()
