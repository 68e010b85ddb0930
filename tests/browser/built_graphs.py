"""Graphs built in ComfyUI's page, each by a few lines of its own script: what a person might have made there.

`T` draws a picture (`load`, `text`, `size`, `sample`, `decode`, `save`); a recipe changes it.
"""

TOOLS = """
const add = (type, title) => {
    const node = LiteGraph.createNode(type);
    if (!node) throw Error('no ' + type);
    if (title) node.title = title;
    node.pos = [300 * app.graph.nodes.length, 0];
    app.graph.add(node);
    return node;
};
const link = (from, output, to, input) => {
    const place = to.inputs.findIndex(slot => slot.name === input);
    if (place < 0) throw Error(`${to.type} has no ${input}: ` + to.inputs.map(slot => slot.name));
    if (!from.connect(output, to, place)) throw Error(`${from.type} to ${to.type}.${input}`);
};
const set = (node, name, value) => {
    const widget = node.widgets.find(widget => widget.name === name);
    if (!widget) throw Error(`${node.type} has no ${name}: ` + node.widgets.map(widget => widget.name));
    widget.value = value;
    widget.callback?.(value);
};
const rest = () => new Promise(done => setTimeout(done, 150));
const fold = async (...nodes) => {
    const {node} = app.canvas.graph.convertToSubgraph(new Set(nodes));
    await rest();
    return node;
};
app.graph.clear();
const T = {};
T.load = add('DiffusionCleft_PhantomLoader');
T.text = add('CLIPTextEncode'); set(T.text, 'text', 'a face');
T.size = add('EmptySD3LatentImage'); set(T.size, 'width', 128);
T.sample = add('KSampler'); set(T.sample, 'seed', 7); set(T.sample, 'steps', 4);
T.decode = add('VAEDecode');
T.save = add('SaveImage');
link(T.load, 0, T.sample, 'model'); link(T.load, 1, T.text, 'clip'); link(T.load, 2, T.decode, 'vae');
link(T.text, 0, T.sample, 'positive'); link(T.text, 0, T.sample, 'negative');
link(T.size, 0, T.sample, 'latent_image'); link(T.sample, 0, T.decode, 'samples');
link(T.decode, 0, T.save, 'images');
"""
_RESIZE = """
const resize = add('ResizeImageMaskNode'); link(T.decode, 0, resize, 'input');
link(resize, 0, T.save, 'images');
"""
_REROUTES = """
const a = add('Reroute'), b = add('Reroute'), c = add('Reroute');
a.connect(0, b, 0); b.connect(0, c, 0); T.load.connect(0, a, 0); link(c, 0, T.sample, 'model');
"""
_LORA = """
const lora = add('LoraLoaderModelOnly'); link(T.load, 0, lora, 'model'); link(lora, 0, T.sample, 'model');
"""

RECIPES = {
    "plain": "",
    "reroutes in a row": _REROUTES,
    "reroutes that fan out": """
const a = add('Reroute'); T.text.connect(0, a, 0);
link(a, 0, T.sample, 'positive'); link(a, 0, T.sample, 'negative');""",
    "a group of reroutes, bypassed in the middle": _REROUTES + "b.mode = 4;",
    "points on links": """
const found = [...app.graph.links.values()][0];
app.graph.createReroute([50, 50], found); app.graph.createReroute([90, 50], found);""",
    "a bypassed loader": _LORA + "lora.mode = 4;",
    "a muted loader": _LORA + "lora.mode = 2;",
    "a muted decoder": "T.decode.mode = 2;",
    "a bypassed sampler": "T.sample.mode = 4;",
    "notes": "set(add('MarkdownNote'), 'text', 'read **me**'); add('Note');",
    "a primitive seed": """
const one = add('PrimitiveNode'); link(one, 0, T.sample, 'seed'); await rest();
set(one, 'seed', 31);""",
    "a primitive for two inputs": """
const one = add('PrimitiveNode'); link(one, 0, T.size, 'width'); await rest();
link(one, 0, T.size, 'height'); set(one, 'width', 192);""",
    "a number from a node": """
const one = add('PrimitiveInt'); set(one, 'value', 11); link(one, 0, T.sample, 'seed');""",
    "a muted number": """
const one = add('PrimitiveInt'); link(one, 0, T.sample, 'seed'); one.mode = 2;""",
    "a text from a node": """
const one = add('PrimitiveStringMultiline'); set(one, 'value', 'a scar'); link(one, 0, T.text, 'text');""",
    "a subgraph": "await fold(T.text, T.size, T.sample);",
    "a subgraph of everything but the ends": "await fold(T.text, T.size, T.sample, T.decode);",
    "a promoted widget": """
const one = add('PrimitiveInt'); link(one, 0, T.sample, 'seed');
const outer = await fold(T.size, T.sample); app.graph.remove(one); await rest();
set(outer, 'seed', 99);""",
    "a nested subgraph": """
const inner = await fold(T.text, T.size); await fold(inner, T.sample);""",
    "a widget promoted twice": """
const one = add('PrimitiveInt'); link(one, 0, T.sample, 'seed');
const inner = await fold(T.sample); const outer = await fold(inner, T.size);
app.graph.remove(one); await rest(); set(outer, 'seed', 5);""",
    "a bypassed subgraph": "const outer = await fold(T.sample); outer.mode = 4;",
    "a muted subgraph": "const outer = await fold(T.text, T.sample); outer.mode = 2;",
    "a subgraph with reroutes in it": _REROUTES + "await fold(a, b, c, T.sample);",
    "a subgraph with a bypassed node in it": _LORA + "lora.mode = 4; await fold(lora, T.sample);",
    "a subgraph with a muted node in it": "T.decode.mode = 2; await fold(T.sample, T.decode);",
    "a subgraph twice": """
const one = add('PrimitiveInt'); link(one, 0, T.sample, 'seed');
const first = await fold(T.sample); app.graph.remove(one); await rest();
const second = first.clone(); app.graph.add(second); await rest();
set(first, 'seed', 1); set(second, 'seed', 2);
link(T.load, 0, second, 'model'); link(T.text, 0, second, 'positive');
link(T.size, 0, second, 'latent_image');
const more = add('VAEDecode'); link(second, 0, more, 'samples'); link(T.load, 2, more, 'vae');
const show = add('PreviewImage'); link(more, 0, show, 'images');""",
    "a dynamic combo": _RESIZE + "set(resize, 'resize_type', 'scale dimensions'); await rest();",
    "a dynamic combo's own widgets": _RESIZE
    + "set(resize, 'resize_type', 'scale by multiplier'); await rest();"
    + "set(resize, 'resize_type.multiplier', 2.5);",
    "a dynamic combo's own socket": _RESIZE
    + "set(resize, 'resize_type', 'match size'); await rest();"
    + "link(T.decode, 0, resize, 'resize_type.match');",
    "a dynamic combo in a subgraph": _RESIZE
    + "set(resize, 'resize_type', 'scale width'); await rest();"
    + "set(resize, 'resize_type.width', 96); await fold(T.decode, resize);",
    "a dynamic combo in a dynamic combo": """
const out = add('SaveImageAdvanced'); link(T.decode, 0, out, 'images');
app.graph.remove(T.save); await rest();""",
    "a socket that grows": """
const batch = add('BatchImagesNode'); await rest();
link(T.decode, 0, batch, batch.inputs[0].name); await rest();
link(T.decode, 0, batch, batch.inputs[1].name); await rest();
link(batch, 0, T.save, 'images');""",
    "a switch of any type": """
const one = add('ComfySwitchNode'); await rest();
link(T.decode, 0, one, 'on_true'); link(T.decode, 0, one, 'on_false'); link(one, 0, T.save, 'images');""",
    "a picture that was uploaded": """
const one = add('LoadImage'); link(one, 0, T.save, 'images');""",
    "our trainer with its options": """
const data = add('DiffusionCleft_PhantomDataset'), options = add('DiffusionCleft_TrainingOptions');
const train = add('DiffusionCleft_LoraTrainer'); set(options, 'learning_rate', 0.002);
set(options, 'preview_prompts', 'one\\ntwo');
link(data, 0, train, 'dataset'); link(options, 0, train, 'options');""",
}
"""Each graph by what it is about."""
