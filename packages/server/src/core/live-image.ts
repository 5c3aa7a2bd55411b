/** Images that are changed while they are exported. */

/**
 * The image of a volume that is exported, changed by who has it open. Each change is made between two requests: what
 * was answered before is in it. Each may be made again. A failure has changed nothing, except that with the codes
 * `unavailable` and `deadline-exceeded` it is not known whether it has.
 */
export interface LiveImage {
  /** What it has now: with a file that may grow, its user changes that. */
  sizeBytes(): Promise<number>;
  /**
   * Never shrinks it. @throws {StorageError} `failed-precondition` while a client is there that would have to be cut
   * off to learn the new size, and would not come again by itself
   */
  grow(sizeBytes: number): Promise<void>;
  /**
   * Keeps the present content inside the image, under a name.
   * @returns whether it is kept; not when requests come in ways that cannot be stopped all at one moment
   */
  keep(name: string): Promise<boolean>;
  /** Lets go of what was kept. What is not there is fine. @throws {StorageError} `failed-precondition` as with keeping */
  drop(name: string): Promise<void>;
  /** Goes on in an empty image, which names the present one as what lies below it. */
  layOver(path: string): Promise<void>;
}
