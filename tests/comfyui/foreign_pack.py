"""A pack of somebody else's, as they are: it loads LoRAs in rows, by number or unseen, and has a saver."""

CODE = '''
import comfy.sd
import comfy.utils
import folder_paths


class AnyInput(dict):
    """Takes inputs of any name, as loaders with rows do."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return ("ANY",)


class RowsLoader:
    """Names its LoRAs in rows, {"on": true, "lora": name, "strength": 0.5}."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}, "optional": AnyInput()}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    def load(self, model, **rows):
        for row in rows.values():
            if isinstance(row, dict) and row.get("on"):
                path = folder_paths.get_full_path_or_raise("loras", row["lora"])
                state = comfy.utils.load_torch_file(path, safe_load=True)
                model, _ = comfy.sd.load_lora_for_models(model, None, state, row["strength"], 0)
        return (model,)


class NumberLoader:
    """Loads the LoRA with this number: no widget names it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "number": ("INT", {"default": 0}), "power": ("FLOAT", {})}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"

    def load(self, model, number, power):
        name = sorted(folder_paths.get_filename_list("loras"))[number]
        path = folder_paths.get_full_path_or_raise("loras", name)
        state = comfy.utils.load_torch_file(path, safe_load=True)
        return (comfy.sd.load_lora_for_models(model, None, state, power, 0)[0],)


class HiddenLoader:
    """Patches the model with something that no widget names."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "style": ("STRING", {"default": "soft"})}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    def patch(self, model, style):
        return (model.clone(),)


class ForeignSaver:
    """Looks at a picture and says its size."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"pictures": ("IMAGE",)}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "save"

    def save(self, pictures):
        return {"ui": {"text": ["x".join(map(str, pictures.shape))]}}


NODE_CLASS_MAPPINGS = {
    "ForeignRowsLoader": RowsLoader,
    "ForeignNumberLoader": NumberLoader,
    "ForeignHiddenLoader": HiddenLoader,
    "ForeignSaver": ForeignSaver,
}
'''
