/** Block exports as QMP knows them, over the service: nodes are volumes, and ids are unique over all services. */
import { EXPORT_ID, StorageError } from "@libstorage/model";
import type {
  CallContext,
  Export,
  ExportAddRequest,
  ExportRemoveMode,
  StorageEvent,
  VolumeService,
} from "@libstorage/model";
import { QmpFailure } from "./failure.js";

export interface Node {
  readonly service: string;
  readonly volumeID: string;
}

/** An export that was added by itself, through whatever door. */
export interface BlockExport extends Node {
  readonly id: string;
  readonly type: string;
  readonly isShuttingDown: boolean;
}

/** Told of each change after it was made; answers how to stop. */
export type Subscribe = (listener: (event: StorageEvent) => void) => () => void;

/** Operations that may take exports away with what they were exports of. */
const TAKING = new Set(["volumeRemove", "volumeDetach", "volumeAttach"]);

function isCode(error: unknown, code: string): boolean {
  return error instanceof StorageError && error.code === code;
}

function blockExportOf(one: Export): readonly BlockExport[] {
  const { id, service, volumeID, exporter, state } = one;
  if (id === undefined) return [];
  return [{ id, service, volumeID, type: exporter, isShuttingDown: state !== "open" }];
}

export class BlockExports {
  readonly #service: VolumeService;
  readonly #subscribe: Subscribe;

  constructor(service: VolumeService, subscribe: Subscribe) {
    this.#service = service;
    this.#subscribe = subscribe;
  }

  async list(): Promise<readonly BlockExport[]> {
    const all = await this.#service.exports({}, undefined, {});
    return Object.values(all).flat().flatMap(blockExportOf);
  }

  /** @throws {QmpFailure} when there is none, or several services have one of that id */
  async find(id: string): Promise<BlockExport> {
    const found = (await this.list()).filter((one) => one.id === id);
    const [first] = found;
    if (first === undefined) throw new QmpFailure(`Export '${id}' is not found`);
    if (found.length > 1)
      throw new QmpFailure(
        `Export '${id}' is one of several services: ${found.map(({ service }) => service).join(", ")}; remove it through /exports`,
      );
    return first;
  }

  /**
   * The volume that a node's name stands for: its id, or `SERVICE/ID` where several services have the id.
   * @throws {QmpFailure}
   */
  async node(name: string, device = ""): Promise<Node> {
    const services = Object.keys(await this.#service.services({}, undefined, {}));
    const slash = name.indexOf("/");
    const wanted =
      slash === -1
        ? services.map((service) => ({ service, volumeID: name }))
        : [{ service: name.slice(0, slash), volumeID: name.slice(slash + 1) }];
    const found: Node[] = [];
    for (const one of wanted) if (await this.#isThere(one)) found.push(one);
    const [first] = found;
    if (first === undefined)
      throw new QmpFailure(`Cannot find device='${device}' nor node-name='${name}'`);
    if (found.length > 1)
      throw new QmpFailure(
        `Node '${name}' is a volume of several services; name it ${found.map(textOf).join(" or ")}`,
      );
    return first;
  }

  async #isThere({ service, volumeID }: Node): Promise<boolean> {
    try {
      await this.#service.volumeInspect({ service, volumeID }, undefined, {});
      return true;
    } catch (error) {
      if (isCode(error, "not-found")) return false;
      throw error;
    }
  }

  /** The names under which nodes are told, for several exports at once. */
  async nodeNames(exports: readonly BlockExport[]): Promise<readonly string[]> {
    const services = Object.keys(await this.#service.services({}, undefined, {}));
    const known = new Map<string, Promise<string>>();
    const nameOf = async (node: Node): Promise<string> => {
      for (const service of services) {
        const other = { service, volumeID: node.volumeID };
        if (service !== node.service && (await this.#isThere(other))) return textOf(node);
      }
      return node.volumeID;
    };
    return Promise.all(
      exports.map((one) => {
        const name = known.get(textOf(one)) ?? nameOf(one);
        known.set(textOf(one), name);
        return name;
      }),
    );
  }

  /** @throws {QmpFailure} for an id that no new export may have */
  async checkID(id: string): Promise<void> {
    if (!EXPORT_ID.test(id)) throw new QmpFailure("Invalid block export id");
    if ((await this.list()).some((one) => one.id.toLowerCase() === id.toLowerCase()))
      throw new QmpFailure(`Block export id '${id}' is already in use`);
  }

  /** @throws {QmpFailure}; {StorageError} */
  async add(
    { service, volumeID }: Node,
    request: Omit<ExportAddRequest, "volumeID"> & { readonly id: string },
    context: CallContext,
  ): Promise<Export> {
    const { id } = request;
    await this.checkID(id);
    try {
      return await this.#service.exportAdd({ service }, { volumeID, ...request }, context);
    } catch (error) {
      if (isCode(error, "already-exists") && (error as StorageError).data["exportID"] === id)
        throw new QmpFailure(`Block export id '${id}' is already in use`);
      if (error instanceof StorageError && error.data["access"] === "ro")
        throw new QmpFailure("Cannot export read-only node as writable");
      throw error;
    }
  }

  /** @throws {QmpFailure}; {StorageError} */
  async remove(
    { service, id }: Pick<BlockExport, "service" | "id">,
    mode: ExportRemoveMode,
    context: CallContext,
  ): Promise<void> {
    try {
      await this.#service.exportRemove({ service, exportID: id, mode }, undefined, context);
    } catch (error) {
      if (isCode(error, "not-found")) throw new QmpFailure(`Export '${id}' is not found`);
      if (error instanceof StorageError && error.data["user"] !== undefined)
        throw new QmpFailure(`export '${id}' still in use: ${error.message}`);
      throw error;
    }
  }

  inspect({ service, id }: Pick<BlockExport, "service" | "id">): Promise<Export> {
    return this.#service.exportInspect({ service, exportID: id }, undefined, {});
  }

  /** Calls back with the id of each export that is gone for good. */
  onDeleted(listener: (id: string) => void): () => void {
    let known: readonly BlockExport[] = [];
    let looking = this.list().then(
      (all) => void (known = all),
      () => {},
    );
    // What went together with its volume or its holders is seen by looking.
    const look = async (): Promise<void> => {
      const now = await this.list();
      const isGone = ({ id }: BlockExport): boolean => !now.some((one) => one.id === id);
      const gone = known.filter(isGone);
      known = now;
      for (const { id } of gone) listener(id);
    };
    return this.#subscribe(({ operation, phase, exportID }) => {
      if (phase !== "end" && phase !== "recovered") return;
      if (operation === "exportRemove" && exportID !== undefined && phase === "end") {
        known = known.filter(({ id }) => id !== exportID);
        listener(exportID);
      } else if (operation === "exportAdd" || TAKING.has(operation))
        looking = looking.then(look).catch(() => {});
    });
  }
}

function textOf({ service, volumeID }: Node): string {
  return `${service}/${volumeID}`;
}
