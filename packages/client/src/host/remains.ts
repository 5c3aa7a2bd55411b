/**
 * What this host has left on a volume's device of a file system that it was making. Its record of the mount says
 * so, and with which token of the attachment; it counts as long as that token is this host's.
 */
import { StorageError } from "@libstorage/model";
import type { CallContext, ServiceInfo, Volume, VolumeAttachment } from "@libstorage/model";
import type { ExecutorContext } from "../executor/executor.js";
import { clearRemains } from "../filesystem/remains.js";
import { transportOf } from "../transports/index.js";
import { tokenOf } from "./hold-token.js";
import { attachedBy } from "./host-service.js";
import type { HostService } from "./host-service.js";
import type { MountRecordFile, MountRecords } from "./mount-records.js";

/** Whether nobody else can have had the device since mkfs began. */
function isOfThisTurn(record: MountRecordFile, own: VolumeAttachment): boolean {
  const token = tokenOf(own);
  return token !== "" && tokenOf(record) === token && record.device === own.deviceName;
}

/** Another host may come and go in this one's turn where a volume is shared, and leave no trace of it. */
function isShared({ attachments = [], fields = {} }: Volume, info: ServiceInfo): boolean {
  const own = fields["shareable"];
  const isAllowed = own === undefined ? info.shareable === true : own === "true" || own === "";
  return isAllowed || attachments.length > 1;
}

export class Remains {
  readonly #host: HostService;
  readonly #records: MountRecords;
  readonly #executors: ExecutorContext;

  constructor(host: HostService, records: MountRecords, executors: ExecutorContext) {
    this.#host = host;
    this.#records = records;
    this.#executors = executors;
  }

  /**
   * Makes the device blank again, if this host has begun to make a file system on it and has had it ever since.
   * Under the volume's lock; to be done before the volume is given back, and before the record is written anew.
   * @throws {StorageError} what keeps it from being looked at or cleared; the record stays as it is
   */
  async clear(volumeID: string, context: CallContext): Promise<void> {
    const record = await this.#records.read(volumeID);
    if (record?.phase !== "formatting") return;
    const own = await this.#soleAttachment(volumeID, context);
    const { exec, warn } = this.#executors;
    if (own !== undefined && isOfThisTurn(record, own)) {
      await this.#host.connect(own, context);
      const { signal = new AbortController().signal } = context;
      const attached = attachedBy(own);
      const prove = async (): Promise<string> =>
        (await transportOf(this.#executors, attached).prove(attached, signal)).path;
      const about = { volumeID, turn: tokenOf(own), exec, signal };
      await clearRemains({ ...about, ...(warn !== undefined && { warn }), prove });
    } else
      warn?.(
        `volume ${volumeID} may have a part of a file system on it, the making of which was cut off here; it is not cleared, since another host may have written there meanwhile`,
      );
    await this.#records.write({ ...record, phase: "mounting" });
  }

  /** A volume that is gone has no device. */
  async #soleAttachment(
    volumeID: string,
    context: CallContext,
  ): Promise<VolumeAttachment | undefined> {
    try {
      const volume = await this.#host.inspect(volumeID, context);
      const { info } = await this.#host.identity(context);
      return isShared(volume, info) ? undefined : await this.#host.ownAttachment(volume, context);
    } catch (error) {
      if (error instanceof StorageError && error.code === "not-found") return undefined;
      throw error;
    }
  }
}
