export declare const PEERS: {
  readonly 'qemu-img': 'qemu-utils'
  readonly 'qemu-io': 'qemu-utils'
  readonly 'qemu-nbd': 'qemu-utils'
  readonly 'qemu-storage-daemon': 'qemu-system-common'
  readonly 'qemu-system-x86_64': 'qemu-system-x86'
  readonly fio: 'fio'
  readonly nbdkit: 'nbdkit'
  readonly nbdinfo: 'libnbd-bin'
  readonly nbdcopy: 'libnbd-bin'
  readonly nbdsh: 'python3-libnbd'
  readonly 'nbd-client': 'nbd-client'
  readonly e2fsck: 'e2fsprogs'
  readonly mke2fs: 'e2fsprogs'
  readonly debugfs: 'e2fsprogs'
  readonly blkparse: 'blktrace'
  readonly strace: 'strace'
  readonly openssl: 'openssl'
  readonly 'guest/vmlinuz': 'linux-image-cloud-amd64'
  readonly 'guest/busybox': 'busybox-static'
}
export declare function locate(program: string): string | undefined
export declare function missingPeers(): string[]
export declare function installPeers(log?: (line: string) => void): string[]
