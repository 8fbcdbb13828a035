/* Arithmetic bound of `best` on one core: the kernel alone (m = 15, four variables folded away, 2^11 sums of the
   rest), without arranging the variables, without finding the mask, data in cache. Prints problems per second. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BLOCK = 128, FOLDS = 4, LOW = 6, HIGH = 5, N = 8192 };

static int low[1 << LOW][BLOCK] __attribute__((aligned(64)));
static int high[1 << HIGH][BLOCK] __attribute__((aligned(64)));
static int x[LOW + HIGH + FOLDS][BLOCK], t[BLOCK], least[BLOCK];

static inline int magnitude(int a) { return a < 0 ? -a : a; }

static void block(void) {
  for (int b = 0; b < BLOCK; b++) low[0][b] = 0, high[0][b] = t[b];
  for (int k = 0; k < LOW; k++)
    for (int s = 0; s < 1 << k; s++)
      for (int b = 0; b < BLOCK; b++) low[s + (1 << k)][b] = low[s][b] + x[k][b];
  for (int k = 0; k < HIGH; k++)
    for (int s = 0; s < 1 << k; s++)
      for (int b = 0; b < BLOCK; b++) high[s + (1 << k)][b] = high[s][b] - x[LOW + k][b];
  for (int b = 0; b < BLOCK; b += 16) {
    int best[16], c[FOLDS][16];
    for (int i = 0; i < 16; i++) best[i] = 0x7fffffff;
    for (int f = 0; f < FOLDS; f++)
      for (int i = 0; i < 16; i++) c[f][i] = magnitude(x[LOW + HIGH + f][b + i]);
    for (int r = 0; r < 1 << HIGH; r++)
      for (int j = 0; j < 1 << LOW; j++)
        for (int i = 0; i < 16; i++) {
          int u = high[r][b + i] - low[j][b + i];
          for (int f = 0; f < FOLDS; f++) u = magnitude(u) - c[f][i];
          u = magnitude(u);
          best[i] = u < best[i] ? u : best[i];
        }
    for (int i = 0; i < 16; i++) least[b + i] = best[i];
  }
}

int main(void) {
  double fastest = 1e9;
  long sum = 0;
  for (int k = 0; k < LOW + HIGH + FOLDS; k++)
    for (int b = 0; b < BLOCK; b++) x[k][b] = (int)((drand48() * 2 - 1) * (1 << 25));
  for (int b = 0; b < BLOCK; b++) t[b] = (int)((drand48() * 2 - 1) * (1 << 25));
  for (int repeat = 0; repeat < 15; repeat++) {
    struct timespec a, z;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < N / BLOCK; i++) block(), sum += least[i], t[i]++;
    clock_gettime(CLOCK_MONOTONIC, &z);
    double seconds = z.tv_sec - a.tv_sec + 1e-9 * (z.tv_nsec - a.tv_nsec);
    if (seconds < fastest) fastest = seconds;
  }
  printf("%.0f\n", N / fastest);
  return sum == 1;
}
