export declare const PEERS: {
  readonly 'qemu-img': 'qemu-utils'
  readonly 'qemu-io': 'qemu-utils'
  readonly 'qemu-nbd': 'qemu-utils'
  readonly 'qemu-storage-daemon': 'qemu-system-common'
  readonly fio: 'fio'
  readonly nbdkit: 'nbdkit'
  readonly nbdinfo: 'libnbd-bin'
  readonly nbdcopy: 'libnbd-bin'
  readonly blkparse: 'blktrace'
}
export declare function missingPeers(): string[]
export declare function installPeers(log?: (line: string) => void): string[]
