/* Fill a disk with a log whose order and wholeness anybody can check.
 *
 * log_writer DEVICE PAUSE_US: blocks of 4096 bytes, little endian, from the start of the disk:
 *   0  the mark       8  number, from 0     16  sum of the block before   24  time, ns
 *  32  filler, which follows from the number                            4088  sum of all before
 * Each is written directly and durably, and some earlier one is read back. A log that is there is
 * gone on with: its last whole block is found first. Ends when the disk is gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define WORDS (BLOCK / 8)
#define MARK 0x474f4c54524f504eULL

static uint64_t sum_of(const uint64_t *words)
{
	uint64_t sum = MARK;
	for (int at = 0; at < WORDS - 1; at++) {
		sum ^= words[at];
		sum *= 0x100000001b3ULL;
		sum ^= sum >> 29;
	}
	return sum;
}

static int is_block(const uint64_t *words, uint64_t number)
{
	return words[0] == MARK && words[1] == number && words[WORDS - 1] == sum_of(words);
}

static int end(const char *device, const char *why, uint64_t number)
{
	printf("WRITER %s %s %llu errno=%d\n", device, why, (unsigned long long)number, errno);
	return 1;
}

int main(int count, char **arguments)
{
	const char *device = arguments[1];
	long pause_us = count > 2 ? atol(arguments[2]) : 0;
	uint64_t *block, *seen, number = 0, before = 0;
	struct timespec now;
	int disk = open(device, O_RDWR | O_DIRECT | O_DSYNC);

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (disk < 0)
		return end(device, "cannot-open", 0);
	if (posix_memalign((void **)&block, BLOCK, BLOCK) || posix_memalign((void **)&seen, BLOCK, BLOCK))
		return end(device, "no-memory", 0);
	while (pread(disk, seen, BLOCK, number * BLOCK) == BLOCK && is_block(seen, number)) {
		before = seen[WORDS - 1];
		number++;
	}
	printf("WRITER %s begins %llu\n", device, (unsigned long long)number);
	for (;; number++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		block[0] = MARK;
		block[1] = number;
		block[2] = before;
		block[3] = now.tv_sec * 1000000000ULL + now.tv_nsec;
		for (int at = 4; at < WORDS - 1; at++)
			block[at] = (number + 1) * 0x9e3779b97f4a7c15ULL + at;
		block[WORDS - 1] = before = sum_of(block);
		if (pwrite(disk, block, BLOCK, number * BLOCK) != BLOCK)
			return end(device, "ends", number);
		uint64_t earlier = number ? (number * 2654435761ULL) % number : 0;
		if (pread(disk, seen, BLOCK, earlier * BLOCK) != BLOCK)
			return end(device, "ends", number);
		if (!is_block(seen, earlier))
			return end(device, "DAMAGED", earlier);
		if (pause_us)
			usleep(pause_us);
	}
}
