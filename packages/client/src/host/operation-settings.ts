/** The keys of section 16.4 of the contract, under their present and their old names. */
import type { AppFolders } from "@libstorage/model";
import type { SettingReader } from "../setting-reader.js";

export interface OperationSettings {
  readonly create: {
    readonly disable: boolean;
    /** Whether mounting an unknown volume creates it. */
    readonly implicit: boolean;
    /** GiB. */
    readonly size: number;
    readonly fsType: string;
    readonly type: string;
    readonly availabilityZone: string;
    readonly iops: number;
  };
  readonly remove: { readonly disable: boolean; readonly force: boolean };
  readonly mount: {
    /** Take volumes from other hosts. */
    readonly preempt: boolean;
    /** The folder in which volumes are mounted, each under its name. */
    readonly path: string;
    /** The folder inside the volume that is handed out; empty for the volume itself. */
    readonly rootPath: string;
    /** The mode of that folder when it is made. */
    readonly fileMode: number;
    readonly retryCount: number;
    readonly retryWaitMs: number;
  };
  readonly unmount: { readonly ignoreUsedCount: boolean };
}

const PREFIX = "libstorage.integration.volume.operations.";

/** The reference writes the mode as a decimal number. */
const FILE_MODE = 0o700;

export function readOperationSettings(
  reader: SettingReader,
  folders: AppFolders,
  module?: string,
): OperationSettings {
  // Modules work with different services, in which volumes may have the same names.
  const mountPath =
    module === undefined ? `${folders.lib}/volumes` : `${folders.lib}/plugins/${module}`;
  const key = (name: string, ...old: string[]): string[] => [`${PREFIX}${name}`, ...old];
  const text = (fallback: string, ...keys: string[]): string => reader.text(...keys) ?? fallback;
  return {
    create: {
      disable: reader.flag(false, ...key("create.disable", "volume.create.disable")),
      implicit: reader.flag(true, ...key("create.implicit")),
      size: reader.count(16, ...key("create.default.size", "docker.size")),
      fsType: text("ext4", ...key("create.default.fsType", "docker.fsType")),
      type: text("", ...key("create.default.type", "docker.volumeType")),
      availabilityZone: text(
        "",
        ...key("create.default.availabilityZone", "docker.availabilityZone"),
      ),
      iops: reader.count(0, ...key("create.default.IOPS", "docker.iops")),
    },
    remove: {
      disable: reader.flag(false, ...key("remove.disable", "volume.remove.disable")),
      force: reader.flag(false, ...key("remove.force")),
    },
    mount: {
      preempt: reader.flag(false, ...key("mount.preempt", "volume.mount.preempt")),
      path: text(mountPath, ...key("mount.path", "docker.mountDirPath")),
      rootPath: text("/data", ...key("mount.rootPath", "linux.volume.rootpath")),
      fileMode: reader.count(FILE_MODE, "linux.volume.filemode"),
      retryCount: reader.count(0, ...key("mount.retryCount")),
      retryWaitMs: reader.duration(5000, ...key("mount.retryWait")),
    },
    unmount: {
      ignoreUsedCount: reader.flag(
        false,
        ...key("unmount.ignoreUsedCount", "volume.unmount.ignoreusedcount"),
      ),
    },
  };
}
