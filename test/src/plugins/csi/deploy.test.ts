/** What is in `deploy/`: it parses, and it says of the plugin what the plugin says of itself. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parse, parseAllDocuments } from "yaml";
import { DRIVER_NAME } from "@libstorage/client/csi";
import { BIN, run, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { openTestPlugin } from "./csi-client.js";
import type { Message } from "./csi-client.js";

const DEPLOY = fileURLToPath(new URL("../../../../deploy/", import.meta.url));
const read = (name: string): string => readFileSync(join(DEPLOY, name), "utf8");
const documentsOf = (name: string): Message[] =>
  parseAllDocuments(read(`kubernetes/${name}`)).map((document) => {
    assert.deepEqual(document.errors, [], name);
    return document.toJS({ maxAliasCount: 100 }) as Message;
  });

const kustomization = parse(read("kubernetes/kustomization.yaml")) as {
  readonly resources: readonly string[];
  readonly images: readonly Message[];
};
const objects = kustomization.resources.flatMap(documentsOf);

function object(kind: string, name?: string): Message {
  const found = objects.filter(
    (one) => one.kind === kind && (name === undefined || one.metadata.name === name),
  );
  assert.equal(found.length, 1, `${kind} ${name}`);
  return found[0];
}

function podOf(kind: string): Message {
  return object(kind).spec.template.spec;
}

function container(kind: string, name: string): Message {
  const found = podOf(kind).containers.find((one: Message) => one.name === name);
  assert.ok(found !== undefined, `${kind} has ${name}`);
  return found;
}

/** What a plugin started with these words would say. */
async function optionsOf(args: readonly string[]): Promise<void> {
  assert.deepEqual(args.slice(0, 2), ["plugin", "csi"]);
  const { stdout } = await run(BIN, ["plugin", "csi", "--help"]);
  for (const arg of args.slice(2)) {
    const [, option = "", value = ""] = /^(--[\w-]+)=(.+)$/.exec(arg) ?? assert.fail(arg);
    const line = stdout.split("\n").find((one) => one.includes(`${option} `));
    assert.ok(line !== undefined, `${option} is an option`);
    if (option === "--mode") assert.ok(line.includes(value), `${value} is a mode`);
  }
}

describe("deploy/", () => {
  let server: TestServer;
  let all: Set<string>;
  let info: Message;
  let expansion: boolean;

  before(async () => {
    server = await startServer();
    const folder = join(server.folder, "host");
    const plugin = await openTestPlugin({ host: server.host, folder, service: "vfs" });
    info = await plugin.call("GetPluginInfo");
    const { capabilities } = await plugin.call("GetPluginCapabilities");
    expansion = capabilities.some((one: Message) => one.volumeExpansion !== undefined);
    const [controller, node] = [
      await plugin.call("ControllerGetCapabilities"),
      await plugin.call("NodeGetCapabilities"),
    ];
    const types = (reply: Message, prefix: string): string[] =>
      reply.capabilities.map((one: Message) => `${prefix}.${one.rpc.type}`);
    all = new Set([...types(controller, "controller"), ...types(node, "node")]);
    await plugin.stop();
  });
  after(() => server.close());

  it("every file of the folder is named, and every object has a kind and a name", () => {
    const files = readdirSync(join(DEPLOY, "kubernetes")).filter(
      (name) => name !== "kustomization.yaml",
    );
    assert.deepEqual([...kustomization.resources].toSorted(), files.toSorted());
    for (const one of objects) {
      assert.match(one.apiVersion, /^(?:[a-z0-9.]+\/)?v\d/);
      assert.ok(one.kind !== undefined && one.metadata.name !== undefined);
    }
  });

  it("the driver's name is the plugin's, everywhere", () => {
    assert.equal(info["name"], DRIVER_NAME);
    assert.equal(object("CSIDriver").metadata.name, DRIVER_NAME);
    assert.equal(object("StorageClass").provisioner, DRIVER_NAME);
    assert.equal(object("VolumeSnapshotClass").driver, DRIVER_NAME);
    const config = parse(object("ConfigMap").data["config.yml"]) as Message;
    assert.equal(config.csi.driverName, DRIVER_NAME);
    const registrar = container("DaemonSet", "registrar").args.join(" ");
    assert.ok(registrar.includes(`/var/lib/kubelet/plugins/${DRIVER_NAME}/csi.sock`));
  });

  it("CSIDriver says what the plugin advertises", () => {
    const { spec } = object("CSIDriver");
    assert.equal(spec.attachRequired, all.has("controller.PUBLISH_UNPUBLISH_VOLUME"));
    assert.equal(spec.fsGroupPolicy, all.has("node.VOLUME_MOUNT_GROUP") ? "File" : "None");
    assert.ok(spec.storageCapacity === false || all.has("controller.GET_CAPACITY"));
    assert.equal(object("StorageClass").allowVolumeExpansion, expansion);
  });

  it("there is a sidecar for what the controller can do, and none for what it cannot", () => {
    const names = podOf("Deployment").containers.map((one: Message) => one.name as string);
    const wanted = [
      ["provisioner", "controller.CREATE_DELETE_VOLUME"],
      ["attacher", "controller.PUBLISH_UNPUBLISH_VOLUME"],
      ["resizer", "controller.EXPAND_VOLUME"],
      ["snapshotter", "controller.CREATE_DELETE_SNAPSHOT"],
    ] as const;
    for (const [name, ability] of wanted)
      assert.equal(names.includes(name), all.has(ability), name);
    assert.deepEqual(
      names.filter((name: string) => !wanted.some(([one]) => one === name)),
      ["plugin", "liveness-probe"],
    );
  });

  it("all containers of a pod have one socket, where the plugin makes it", async () => {
    for (const [kind, mode] of [
      ["Deployment", "controller"],
      ["DaemonSet", "node"],
    ] as const) {
      const { args } = container(kind, "plugin");
      await optionsOf(args);
      assert.ok(args.includes(`--mode=${mode}`));
      assert.ok(args.includes("--endpoint=unix:///csi/csi.sock"));
      for (const one of podOf(kind).containers) {
        assert.ok(
          one.volumeMounts.some(({ mountPath }: Message) => mountPath === "/csi"),
          `${one.name} sees /csi`,
        );
        if (one.name !== "plugin") assert.ok(one.args.includes("--csi-address=/csi/csi.sock"));
      }
    }
  });

  it("what is mounted exists, and every image is in the kustomization", () => {
    const images = new Set(kustomization.images.map((one) => one.name as string));
    for (const kind of ["Deployment", "DaemonSet"]) {
      const { containers, volumes, serviceAccountName } = podOf(kind);
      object("ServiceAccount", serviceAccountName);
      const names = new Set(volumes.map((one: Message) => one.name));
      for (const one of containers) {
        assert.ok(images.has(one.image), one.image);
        for (const mount of one.volumeMounts) assert.ok(names.has(mount.name), mount.name);
      }
    }
  });

  it("the node's mounts reach the host, and its state outlives the pod", () => {
    const { volumeMounts, securityContext } = container("DaemonSet", "plugin");
    assert.equal(securityContext.privileged, true);
    const at = (path: string): Message =>
      volumeMounts.find(({ mountPath }: Message) => mountPath === path);
    assert.equal(at("/var/lib/kubelet").mountPropagation, "Bidirectional");
    const { name } = at("/var/lib/libstorage");
    const state = podOf("DaemonSet").volumes.find((one: Message) => one.name === name);
    assert.equal(state.hostPath.path, "/var/lib/libstorage");
    assert.equal(podOf("DaemonSet").hostNetwork, true);
  });

  it("the sidecars may do what they do", () => {
    const { rules } = object("ClusterRole");
    const may = (resource: string, verb: string): boolean =>
      rules.some((one: Message) => one.resources.includes(resource) && one.verbs.includes(verb));
    for (const [resource, verb] of [
      ["persistentvolumes", "create"],
      ["persistentvolumes", "patch"],
      ["volumeattachments/status", "patch"],
      ["persistentvolumeclaims/status", "patch"],
      ["volumesnapshotcontents/status", "patch"],
      ["csinodes", "list"],
    ] as const)
      assert.ok(may(resource, verb), `${verb} ${resource}`);
    assert.ok(!rules.some((one: Message) => one.resources.includes("secrets")), "no secrets");
  });

  for (const [file, mode] of [
    ["libstorage-csi-controller.nomad.hcl", "controller"],
    ["libstorage-csi-node.nomad.hcl", "node"],
  ] as const)
    it(`nomad/${file} starts the plugin as ${mode}`, async () => {
      const text = read(`nomad/${file}`).replaceAll(/^\s*#.*$/gm, "");
      for (const [open, close] of [
        ["{", "}"],
        ["[", "]"],
      ] as const)
        assert.equal(text.split(open).length, text.split(close).length, `${open} and ${close}`);
      const args = /\bargs\s*=\s*(\[[^\]]*\])/.exec(text)?.[1] ?? assert.fail("no args");
      const words = JSON.parse(args) as string[];
      await optionsOf(words);
      assert.ok(words.includes(`--mode=${mode}`));
      const block = /csi_plugin \{([^}]*)\}/.exec(text)?.[1] ?? assert.fail("no csi_plugin");
      const value = (key: string): string | undefined =>
        new RegExp(String.raw`\b${key}\s*=\s*"([^"]*)"`).exec(block)?.[1];
      assert.equal(value("type"), mode);
      assert.equal(value("id"), /plugin_id\s*=\s*"(\w+)"/.exec(read("nomad/volume.hcl"))?.[1]);
      assert.ok(text.includes(`CSI_ENDPOINT = "unix://${value("mount_dir")}/csi.sock"`));
      assert.equal(text.includes("privileged   = true"), mode === "node");
    });
});
