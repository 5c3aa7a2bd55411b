/** The file systems that volumes get: how each is made, looked after and grown. A line of knowledge per tool. */
export interface FileSystemKind {
  /** As mount(8) calls it. */
  readonly type: string;
  /** The package that has its tools. */
  readonly tools: string;
  readonly labelLength: number;
  /**
   * Discarding a new volume is of no use: it is blank.
   * @param uuid left out: one by chance
   */
  make(device: string, label: string, uuid?: string): readonly [string, ...string[]];
  /** Run before a mount. Left out where the kernel looks after it while it mounts. */
  check?(device: string): readonly [string, ...string[]];
  /** Run while it is mounted; does nothing when the device has not grown. */
  grow(device: string, mountPoint: string): readonly [string, ...string[]];
  /** What every mount of it needs. */
  readonly mountOptions?: string;
  /** What to do when a mount says that it is damaged. */
  repair(device: string): string;
}

function ext(type: string): FileSystemKind {
  return {
    type,
    tools: "e2fsprogs",
    labelLength: 16,
    make: (device, label, uuid) => [
      `mkfs.${type}`,
      "-q",
      "-E",
      "nodiscard",
      ...(uuid === undefined ? [] : ["-U", uuid]),
      "-L",
      label,
      "--",
      device,
    ],
    // Replays the journal, and corrects what needs no decision.
    check: (device) => ["e2fsck", "-p", device],
    grow: (device) => ["resize2fs", device],
    repair: (device) => `e2fsck -f ${device}`,
  };
}

export const FILE_SYSTEMS: Readonly<Record<string, FileSystemKind>> = {
  btrfs: {
    type: "btrfs",
    tools: "btrfs-progs",
    labelLength: 255,
    make: (device, label, uuid) => {
      const own = uuid === undefined ? [] : ["-U", uuid];
      return ["mkfs.btrfs", "-q", "-K", ...own, "-L", label, "--", device];
    },
    grow: (_device, mountPoint) => ["btrfs", "filesystem", "resize", "max", mountPoint],
    repair: (device) => `btrfs check --readonly ${device}`,
  },
  ext2: ext("ext2"),
  ext3: ext("ext3"),
  ext4: ext("ext4"),
  xfs: {
    type: "xfs",
    tools: "xfsprogs",
    labelLength: 12,
    make: (device, label, uuid) => {
      const own = uuid === undefined ? [] : ["-m", `uuid=${uuid}`];
      return ["mkfs.xfs", "-q", "-K", ...own, "-L", label, device];
    },
    grow: (_device, mountPoint) => ["xfs_growfs", "-d", mountPoint],
    // A copy of a volume has its UUID, and both may be mounted on this host.
    mountOptions: "nouuid",
    repair: (device) => `xfs_repair ${device}`,
  },
};

/** In the words of the settings and of errors. */
export const FILE_SYSTEM_TYPES: readonly string[] = Object.keys(FILE_SYSTEMS);
