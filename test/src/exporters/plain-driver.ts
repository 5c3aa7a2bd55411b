/**
 * A driver for tests of exporters: each volume is a raw file or a logical volume of the group `vg0`, with its record
 * in a file. It knows nothing of holders but their names, so what keeps them apart is the core and the exporter.
 */
import { readFile, readdir, truncate } from "node:fs/promises";
import { basename, join } from "node:path";
import * as v from "valibot";
import { GIB, isSameInstance } from "@libstorage/model";
import { defineDriver } from "@libstorage/server";
import type {
  DriverModule,
  IdScheme,
  OpContext,
  Source,
  StorageDriver,
  VolumeRecord,
} from "@libstorage/server";

const IDS: IdScheme = {
  first: 0,
  volumeID: (number) => `plain-${String(number).padStart(3, "0")}`,
  snapshotID: (number) => `none-${number}`,
  numberOfVolume: (id) => numberIn(/^plain-(\d{3,15})$/, id),
  numberOfSnapshot: () => undefined,
};

function numberIn(form: RegExp, id: string): number | undefined {
  const digits = form.exec(id)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

const PlainConfig = v.object({ root: v.string(), kind: v.picklist(["file", "lv"]) });
type PlainConfig = v.InferOutput<typeof PlainConfig>;

class PlainDriver implements StorageDriver {
  readonly mutable = [];
  readonly type = "block";
  readonly nextDevice = { ignore: true, prefix: "", pattern: "" };
  readonly allocationUnitBytes = 4 * 1024 ** 2;
  readonly defaultSizeBytes = 16 * 1024 ** 2;
  readonly ids = IDS;
  readonly isHostBound = true;
  readonly #config: PlainConfig;

  constructor(config: PlainConfig) {
    this.#config = config;
  }

  /** Services share the group. */
  #lv(id: string): string {
    return `vg0/${basename(this.#config.root)}-${id}`;
  }

  #record(id: string): string {
    return join(this.#config.root, `${id}.json`);
  }

  #source(id: string): Source {
    return this.#config.kind === "lv"
      ? { kind: "block", path: `/dev/${this.#lv(id)}` }
      : { kind: "file", path: join(this.#config.root, `${id}.raw`), format: "raw" };
  }

  async list() {
    const names = await readdir(this.#config.root);
    const ids = names.flatMap((name) => /^(plain-\d+)\.json$/.exec(name)?.[1] ?? []);
    const volumes = await Promise.all(ids.sort().map((id) => this.#read(id)));
    return { volumes: volumes.flatMap((one) => one ?? []), snapshots: [] };
  }

  async #read(id: string): Promise<VolumeRecord | undefined> {
    const text = await readFile(this.#record(id), "utf8").catch(() => undefined);
    return text === undefined ? undefined : (JSON.parse(text) as VolumeRecord);
  }

  async #write(volume: VolumeRecord, { files }: OpContext): Promise<VolumeRecord> {
    await files.write(this.#record(volume.id), JSON.stringify(volume));
    return volume;
  }

  volumeInspect(id: string) {
    return this.#read(id);
  }

  async snapshotInspect() {
    return undefined;
  }

  async volumeCreate(volume: VolumeRecord, context: OpContext) {
    const source = this.#source(volume.id);
    if (source.kind === "block")
      await context.exec(
        "lvcreate",
        ["-y", "-Wn", "-L", `${volume.sizeBytes}b`, "-n", basename(source.path), "vg0"],
        context.signal,
      );
    else if (source.kind === "file") {
      await context.files.write(source.path, "");
      await truncate(source.path, volume.sizeBytes);
    }
    return this.#write({ ...volume, source }, context);
  }

  async volumeRemove(id: string, context: OpContext) {
    const source = this.#source(id);
    if (source.kind === "file") await context.files.unlink(source.path);
    else if ((await this.#read(id)) !== undefined)
      await context.exec("lvremove", ["-y", this.#lv(id)], context.signal);
    await context.files.unlink(this.#record(id));
  }

  volumeUpdate(volume: VolumeRecord, context: OpContext) {
    return this.#write(volume, context);
  }

  volumeAttach(
    volume: VolumeRecord,
    attachment: VolumeRecord["attachments"][number],
    context: OpContext,
  ) {
    const others = volume.attachments.filter(
      (one) => !isSameInstance(one.instanceID, attachment.instanceID),
    );
    const { epoch } = attachment;
    return this.#write({ ...volume, epoch, attachments: [...others, attachment] }, context);
  }

  volumeDetach(
    volume: VolumeRecord,
    holder: Parameters<StorageDriver["volumeDetach"]>[1],
    _force: boolean,
    context: OpContext,
  ) {
    const attachments = volume.attachments.filter((one) => !isSameInstance(one.instanceID, holder));
    return this.#write({ ...volume, attachments }, context);
  }

  async volumeExpand(volume: VolumeRecord, sizeBytes: number, context: OpContext) {
    if (volume.source.kind === "file") await truncate(volume.source.path, sizeBytes);
    else
      await context.exec("lvextend", ["-L", `${sizeBytes}b`, this.#lv(volume.id)], context.signal);
    return this.#write({ ...volume, sizeBytes }, context);
  }

  instanceInspect(id: Parameters<StorageDriver["instanceInspect"]>[0]) {
    return { instanceID: id, name: id.id, providerName: "plain", region: "" };
  }

  attachToken() {
    return "";
  }

  async abilities() {
    return [];
  }

  async capacity() {
    return { freeBytes: GIB, totalBytes: GIB };
  }

  async close() {}
}

export const plain: DriverModule = defineDriver({
  name: "plain",
  config: PlainConfig,
  open: async (config) => new PlainDriver(config),
});
